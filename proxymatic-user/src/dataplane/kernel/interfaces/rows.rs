//! The hooks of interfaces as rows of `hook show`.

use std::os::fd::AsFd as _;

use aya::programs::ProgramInfo;

use super::{
    super::{
        Pins, bpf,
        hook_names::XDP_INGRESS,
        hook_row::{HookRow, mean_ns},
    },
    interface_map::InterfaceMap,
    netlink, pinned, read_filter_name,
};
use crate::dataplane::Error;

/// Returns the hooks of interfaces, forward hooks first.
///
/// # Errors
/// Fails if a pin cannot be read, or if the kernel does not show the filters.
pub(in super::super) fn rows(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let mut rows = Vec::new();
    for ((hook, interface), pin) in pinned(pins).into_iter().rev() {
        let failed = |error: &dyn std::error::Error| Error::kernel(format!("read {}", pin.display()), error);
        let link = bpf::open(&pin).map_err(|error| failed(&error))?;
        let at = bpf::interface_link_info(link.as_fd()).map_err(|error| failed(&error))?;
        let (runs, mean_ns) = measured(pins, hook)?;
        rows.push(HookRow {
            hook,
            interface: Some(interface),
            program: at.program,
            link: Some(at.link),
            pin: Some(pin.display().to_string()),
            effective: Some(at.interface != 0),
            runs,
            mean_ns,
        });
    }
    if rows.iter().all(|row| row.hook == XDP_INGRESS) && pins.program("tc_ingress").exists() {
        rows.extend(filters(pins)?);
    }
    Ok(rows)
}

/// Returns runs and mean time of a hook on all interfaces together, which run the same program.
fn measured(pins: &Pins, hook: &str) -> Result<(u64, Option<f64>), Error> {
    let path = pins.program(hook);
    let info = ProgramInfo::from_pin(&path);
    let info = info.map_err(|error| Error::kernel(format!("read {}", path.display()), &error))?;
    let runs = info.run_count();
    Ok((runs, mean_ns(runs, info.run_time())))
}

fn filters(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let (attached, bpffs) = (InterfaceMap::open(pins)?.attached()?, pins.bpffs());
    let found = netlink::with_netlink(|netlink| async move {
        let mut found = Vec::new();
        for interface in attached {
            found.extend(netlink::filters(&netlink, interface, |name| read_filter_name(name, bpffs).is_some()).await?);
        }
        Ok(found)
    });
    let found = found.map_err(|error| Error::kernel("list the clsact filters", &error))?;
    let row = |filter: netlink::Filter| {
        let (hook, interface) = read_filter_name(&filter.name, bpffs)?;
        let measured = measured(pins, hook);
        Some(measured.map(|(runs, mean_ns)| HookRow {
            hook,
            interface: Some(interface),
            program: filter.program,
            link: None,
            pin: None,
            effective: Some(true),
            runs,
            mean_ns,
        }))
    };
    found.into_iter().filter_map(row).collect()
}
