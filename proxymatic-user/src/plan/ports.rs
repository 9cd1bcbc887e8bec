//! The bits of the service ports: set before the first service of a port, cleared after the last.

use std::collections::BTreeSet;

use proxymatic_common::PortBit;

use super::{MapOp, builder::PlanBuilder};

/// Adds the writes that set the bits for exactly the ports that have a service after the plan's writes so far.
pub(super) fn put_port_bits(builder: &mut PlanBuilder<'_>) {
    let mut frontends: BTreeSet<_> = builder.tables.frontends().keys().copied().collect();
    for op in &builder.ops {
        match op {
            MapOp::PutFrontend(frontend, _) => frontends.insert(*frontend),
            MapOp::DelFrontend(frontend) => frontends.remove(frontend),
            _ => continue,
        };
    }
    let desired: BTreeSet<_> = frontends.iter().map(|frontend| (frontend.protocol, frontend.port)).collect();
    let current = builder.tables.ports();
    let has_bit = |at: &&(u8, _)| PortBit::of(at.1, at.0).is_some();
    builder
        .ops
        .extend(desired.difference(current).filter(has_bit).map(|(protocol, port)| MapOp::SetPort(*port, *protocol)));
    builder.ops.extend(current.difference(&desired).map(|(protocol, port)| MapOp::ClearPort(*port, *protocol)));
}
