//! Warns of foreign programs on our hooks. The kernel runs them as well, and they may rewrite a connection before or after
//! ours.

use std::path::Path;

use crate::dataplane::kernel::{ForeignProgram, Pins, foreign_programs};

/// Returns a warning that lists the foreign programs on the served cgroup.
pub(super) fn warning(cgroup: Option<&Path>, pins: &Pins) -> Option<String> {
    match foreign_programs(cgroup?, pins) {
        Ok(found) => describe(&found),
        // Not a warning: this process may lack the capabilities for the query.
        Err(error) => {
            tracing::debug!("{error}");
            None
        }
    }
}

fn describe(found: &[ForeignProgram]) -> Option<String> {
    let one = |it: &ForeignProgram| {
        let name = it.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("without a name");
        format!("{name} (program {}, at {})", it.program, it.hooks.join(" and "))
    };
    (!found.is_empty()).then(|| {
        format!(
            "programs of others are attached to the cgroup that is served, or above it: {}; connections that they rewrite \
             may not reach services: inspect them with `bpftool prog show id N`, and let only one of the two serve an address",
            found.iter().map(one).collect::<Vec<_>>().join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_named_with_its_hooks() {
        let cilium = ForeignProgram { program: 41, name: Some("cil_sock4_connect".into()), hooks: vec!["connect4"] };
        let other = ForeignProgram { program: 42, name: None, hooks: vec!["sendmsg4", "sendmsg6"] };
        let said = describe(&[cilium, other]).unwrap();
        assert!(
            said.contains("cil_sock4_connect (program 41, at connect4), without a name (program 42, at sendmsg4 and ")
        );
        assert_eq!(describe(&[]), None);
    }
}
