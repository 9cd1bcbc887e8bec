//! Programs of others on the hooks that we use. They run too, and may take a connection elsewhere before or after us.

use std::path::Path;

use crate::dataplane::kernel::{ForeignProgram, Pins, foreign_programs};

/// Who else is there, in one sentence.
pub(super) fn found(cgroup: Option<&Path>, pins: &Pins) -> Option<String> {
    match foreign_programs(cgroup?, pins) {
        Ok(found) => sentence(&found),
        // Then it is not known, which is no warning: it may take more than this process is allowed.
        Err(error) => {
            tracing::debug!("{error}");
            None
        }
    }
}

fn sentence(found: &[ForeignProgram]) -> Option<String> {
    let one = |it: &ForeignProgram| {
        let name = it.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("without a name");
        format!("{name} (program {}, at {})", it.program, it.hooks.join(" and "))
    };
    (!found.is_empty()).then(|| {
        format!(
            "programs of others are attached to the cgroup that is served, or above it: {}; connections that they rewrite \
             may not reach services: look at them with `bpftool prog show id N`, and leave either to them or to proxymatic \
             what both would serve",
            found.iter().map(one).collect::<Vec<_>>().join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_with_where_it_is() {
        let cilium = ForeignProgram { program: 41, name: Some("cil_sock4_connect".into()), hooks: vec!["connect4"] };
        let other = ForeignProgram { program: 42, name: None, hooks: vec!["sendmsg4", "sendmsg6"] };
        let said = sentence(&[cilium, other]).unwrap();
        assert!(
            said.contains("cil_sock4_connect (program 41, at connect4), without a name (program 42, at sendmsg4 and ")
        );
        assert_eq!(sentence(&[]), None);
    }
}
