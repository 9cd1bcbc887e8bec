//! Removes our hooks from all interfaces.

use super::{
    super::{Pins, hook_names::PACKET_HOOKS, pins::remove},
    netlink, pinned, read_filter_name,
};
use crate::dataplane::Error;

/// Removes the hooks of all map ABI versions from interfaces, forward hooks first, and the pins of their programs.
/// Returns the removed pins and filters. The clsact qdisc stays, because other filters may use it.
///
/// # Errors
/// Fails if a pin or a filter cannot be removed.
pub(in super::super) fn remove_all(pins: &Pins) -> Result<Vec<String>, Error> {
    let versions: Vec<_> = std::iter::once(pins.clone()).chain(pins.other_versions()).collect();
    let mut left: Vec<_> = versions.iter().flat_map(pinned).collect();
    left.sort_by_key(|((hook, _), _)| PACKET_HOOKS.iter().rev().position(|it| it == hook));
    let programs = versions.iter().flat_map(|pins| PACKET_HOOKS.map(|hook| pins.program(hook)));
    let programs: Vec<_> = programs.filter(|pin| pin.exists()).collect();
    let links: Vec<_> = left.into_iter().map(|(_, pin)| pin).collect();
    let mut removed = Vec::new();
    for pin in &links {
        remove_pin(pin, &mut removed)?;
    }
    if !programs.is_empty() {
        removed.extend(remove_filters(pins)?);
    }
    for pin in &programs {
        remove_pin(pin, &mut removed)?;
    }
    Ok(removed)
}

fn remove_pin(pin: &std::path::Path, removed: &mut Vec<String>) -> Result<(), Error> {
    if remove(pin).map_err(|error| Error::kernel(format!("remove {}", pin.display()), &error))? {
        removed.push(pin.display().to_string());
    }
    Ok(())
}

fn remove_filters(pins: &Pins) -> Result<Vec<String>, Error> {
    let bpffs = pins.bpffs();
    let removed = netlink::with_netlink(|netlink| async move {
        let mut removed = Vec::new();
        for device in netlink::devices(&netlink).await? {
            let is_ours = |name: &str| read_filter_name(name, bpffs).is_some();
            let mut filters = netlink::filters(&netlink, device.index, is_ours).await?;
            filters.sort_by_key(|filter| filter.egress);
            for filter in filters {
                netlink::remove_filter(&netlink, &filter).await?;
                let hook = if filter.egress { "tc_egress" } else { "tc_ingress" };
                removed.push(format!("the filter of {hook} on interface {}", device.name));
            }
        }
        Ok(removed)
    });
    removed.map_err(|error| Error::kernel("remove the clsact filters", &error))
}
