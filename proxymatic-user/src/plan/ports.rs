//! The bits that say which ports are worth a look: set before the first service of a port, cleared after the last.

use std::collections::BTreeSet;

use proxymatic_common::PortBit;

use super::{MapOp, builder::PlanBuilder};

/// The writes that make the bits those of the services there are to be, by the writes so far.
pub(super) fn put(draft: &mut PlanBuilder<'_>) {
    let mut frontends: BTreeSet<_> = draft.tables.frontends().keys().copied().collect();
    for op in &draft.ops {
        match op {
            MapOp::PutFrontend(frontend, _) => frontends.insert(*frontend),
            MapOp::DelFrontend(frontend) => frontends.remove(frontend),
            _ => continue,
        };
    }
    let wanted: BTreeSet<_> = frontends.iter().map(|frontend| (frontend.protocol, frontend.port)).collect();
    let known = draft.tables.ports();
    let has_bit = |at: &&(u8, _)| PortBit::of(at.1, at.0).is_some();
    draft.ops.extend(wanted.difference(known).filter(has_bit).map(|(protocol, port)| MapOp::SetPort(*port, *protocol)));
    draft.ops.extend(known.difference(&wanted).map(|(protocol, port)| MapOp::ClearPort(*port, *protocol)));
}
