//! The writes that an agent would make.

use serde::Serialize;

use super::{
    AwaitedBackend, Rows, ServiceRow,
    render::{awaited, entry},
    view,
};
use crate::{
    model::Warning,
    plan::{MapOp, MapState},
};

/// The output of `plan show`. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The services after the writes. All their counters are zero.
    pub services: Vec<ServiceRow>,
    /// The writes, in order.
    pub operations: Vec<String>,
    /// What was asked for but would not be done, and why.
    pub warnings: Vec<Warning>,
    /// The new backends that an agent would not use before they answer a probe; absent if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<AwaitedBackend>,
    /// The state to which the writes are the difference, in words.
    #[serde(skip)]
    base: String,
}

impl Planned {
    /// Makes the output from the writes and the map state before them.
    pub fn new(
        base: String,
        mut tables: MapState,
        ops: &[MapOp],
        awaited: Vec<AwaitedBackend>,
        warnings: Vec<Warning>,
    ) -> Self {
        ops.iter().for_each(|op| tables.apply(op));
        let operations = ops.iter().map(ToString::to_string).collect();
        Self { services: view::rows(&tables, None), operations, warnings, awaited, base }
    }
}

impl Rows for Planned {
    fn table(&self) -> String {
        let mut text = format!("{}\n\ncompared with {}\n", self.services.table().trim_end(), self.base);
        match self.operations.len() {
            0 => text += "nothing would change\n",
            1 => text += "1 write:\n",
            n => text += &format!("{n} writes, in this order:\n"),
        }
        for operation in &self.operations {
            text += &format!("  {operation}\n");
        }
        for it in &self.awaited {
            text += &awaited(&it.service, it.backend, &it.reason);
        }
        for warning in &self.warnings {
            text += &entry("warning", &format!("{}: {}", warning.app, warning.reason));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_table_names_its_base_and_fits_the_terminal() {
        let reason =
            "label com.meltwater.proxymatic.port.0.weight=heavy: must be a number from 0 to 1000; the default is used";
        let warning = Warning { app: "/shop/web".into(), reason: reason.into() };
        let planned = Planned::new("empty tables".into(), MapState::default(), &[], Vec::new(), vec![warning]);
        let table = planned.table();
        assert!(
            table.contains("\n\ncompared with empty tables\nnothing would change\nwarning    /shop/web: label "),
            "{table}"
        );
        assert!(table.ends_with("is used\n") && table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }
}
