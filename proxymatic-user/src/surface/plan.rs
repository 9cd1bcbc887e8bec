//! What an agent would write.

use serde::Serialize;

use super::{Rows, ServiceRow, view};
use crate::{
    model::Complaint,
    plan::{MapOp, Tables},
};

/// What `plan show` prints. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The services there would be. What is counted of them is not looked at: zero.
    pub services: Vec<ServiceRow>,
    /// The writes, in order.
    pub operations: Vec<String>,
    /// What was asked for and would not be done, and why.
    pub complaints: Vec<Complaint>,
    /// What this is the difference to, in words.
    #[serde(skip)]
    against: String,
}

impl Planned {
    /// What would be there after these writes to these tables.
    pub fn new(against: String, mut tables: Tables, ops: &[MapOp], complaints: Vec<Complaint>) -> Self {
        ops.iter().for_each(|op| tables.apply(op));
        let operations = ops.iter().map(ToString::to_string).collect();
        Self { services: view::rows(&tables, None), operations, complaints, against }
    }
}

impl Rows for Planned {
    fn table(&self) -> String {
        let mut text = format!("{}\n\ncompared with {}\n", self.services.table().trim_end(), self.against);
        match self.operations.len() {
            0 => text += "nothing would change\n",
            1 => text += "1 write:\n",
            n => text += &format!("{n} writes, in this order:\n"),
        }
        for operation in &self.operations {
            text += &format!("  {operation}\n");
        }
        for complaint in &self.complaints {
            text += &format!("{:<11}{}: {}\n", "complaint", complaint.app, complaint.reason);
        }
        text
    }
}
