//! One look at the interfaces, and what is to be done then: asked anew each time, nothing is believed to have stayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::Ebpf;
use nix::libc;
use rtnetlink::Handle;

use super::{
    super::{Pins, attach, bpf, pins::remove},
    InterfaceWarning, PACKET_HOOKS, RemoteClients, XDP_INGRESS, attach_type, filter_name,
    interface_map::InterfaceMap,
    match_names::{Device, resolve},
    netlink::{self, Filter},
    pinned_link::{self, PinnedLink},
    read_filter_name,
};
use crate::dataplane::Error;

/// XDP_FLAGS_DRV_MODE: in the driver, or not at all.
const NATIVE: u32 = 1 << 2;

/// A program, loaded, and the kernel's id of it.
#[derive(Debug)]
struct Program {
    fd: OwnedFd,
    id: u32,
}

/// Keeps the hooks where they are wanted.
#[derive(Debug)]
pub struct Interfaces {
    pins: Pins,
    wanted: RemoteClients,
    programs: BTreeMap<&'static str, Program>,
    marks: InterfaceMap,
    /// Whether the kernel has links of TC; not known before the first has been made.
    links: Option<bool>,
    /// Where programs are, by the names of interfaces that the operator gave.
    stands: BTreeMap<String, u32>,
    /// The first look is for what others have left, too.
    first: bool,
}

/// Loads the programs of the hooks that are wanted.
///
/// # Errors
/// The kernel's reason.
pub(in super::super) fn load(object: &mut Ebpf, wanted: &RemoteClients) -> Result<(), Error> {
    for hook in wanted.hooks() {
        let program = attach::program(object, hook)?;
        attach::load_one(program).map_err(|error| {
            let Error::Kernel { action, reason } = Error::kernel(format!("load the program of {hook}"), &error) else {
                unreachable!("Error::kernel makes that kind")
            };
            Error::host(
                format!("cannot {action}: {reason}"),
                "this kernel cannot serve clients on other machines: start without --interface, or take a newer one",
            )
        })?;
    }
    Ok(())
}

/// Refuses an XDP program of somebody else on an interface that is wanted for ours, before anything is attached.
///
/// # Errors
/// There is one; the sentence names it.
pub(in super::super) fn refuse(pins: &Pins, wanted: &RemoteClients) -> Result<(), Error> {
    if !wanted.xdp {
        return Ok(());
    }
    let devices = netlink::converse(|netlink| async move { netlink::devices(&netlink).await });
    let devices = devices.map_err(|error| Error::kernel("ask for the interfaces of this host", &error))?;
    let ours = our_xdp(pins);
    for device in resolve(&wanted.names, &devices, &BTreeMap::new()).into_values() {
        if let Some(program) = device.xdp.filter(|program| !ours.contains(program)) {
            return Err(Error::host(
                format!("interface {} has an XDP program already, {program}", device.name),
                format!("see whose it is with `bpftool prog show id {program}`, and end it, or start with --xdp off"),
            ));
        }
    }
    Ok(())
}

/// The ids of the XDP programs behind our links, those of other versions included.
fn our_xdp(pins: &Pins) -> BTreeSet<u32> {
    let all = std::iter::once(pins.clone()).chain(pins.other_versions());
    let standing = all.flat_map(|pins| pinned_link::standing(&pins));
    standing.filter(|((hook, _), _)| *hook == XDP_INGRESS).map(|(_, standing)| standing.at.program).collect()
}

impl Interfaces {
    /// With programs that are loaded.
    ///
    /// # Errors
    /// A program is not, or a map cannot be opened.
    pub(in super::super) fn new(object: &mut Ebpf, pins: &Pins, wanted: RemoteClients) -> Result<Self, Error> {
        let mut programs = BTreeMap::new();
        for hook in wanted.hooks() {
            let failed = |error: &dyn std::error::Error| Error::kernel(format!("open the program of {hook}"), error);
            let program = attach::program(object, hook)?;
            let fd = attach::program_fd(program).map_err(|error| failed(&error))?;
            let fd = fd.try_clone_to_owned().map_err(|error| failed(&error))?;
            let id = program.info().map_err(|error| failed(&error))?.id();
            programs.insert(hook, Program { fd, id });
        }
        let marks = InterfaceMap::open(pins)?;
        Ok(Self { pins: pins.clone(), wanted, programs, marks, links: None, stands: BTreeMap::new(), first: true })
    }

    /// Looks, and does what is to be done. Gives what cannot be done.
    ///
    /// # Errors
    /// The kernel does not show its interfaces; all stays as it is.
    pub async fn keep(&mut self, netlink: &Handle) -> Result<Vec<InterfaceWarning>, Error> {
        let failed = |error: io::Error| Error::kernel("look at the interfaces of this host", &error);
        let devices = netlink::devices(netlink).await.map_err(failed)?;
        let ours = pinned_link::standing(&self.pins);
        let others: Vec<_> = self.pins.other_versions().iter().map(pinned_link::standing).collect();
        if self.first {
            self.programs_pinned()?;
            self.remember(&ours, &others);
            if self.links != Some(true) {
                for device in &devices {
                    let filters = self.filters(netlink, device.index).await.map_err(failed)?;
                    let found = filters.iter().filter_map(|it| read_filter_name(&it.name, self.pins.bpffs()));
                    self.stands.extend(found.map(|(_, interface)| (interface, device.index)));
                }
            }
        }
        let mut troubles = Vec::new();
        let found: BTreeMap<_, _> = resolve(&self.wanted.names, &devices, &self.stands)
            .into_iter()
            .map(|(name, device)| (name, device.clone()))
            .collect();
        self.leave(netlink, &devices, &found, ours.iter().chain(others.iter().flatten())).await.map_err(failed)?;
        let mut attached = Vec::new();
        for (name, device) in &found {
            if !device.ethernet {
                let reason = "its packets are not those of Ethernet: no client is served by it; leave it out";
                troubles.push(InterfaceWarning { interface: name.clone(), reason: reason.into() });
                continue;
            }
            let (mut well, mut xdp) = (true, self.wanted.xdp);
            for hook in self.wanted.hooks().collect::<Vec<_>>() {
                let key = (hook, name.clone());
                let standing = ours.get(&key);
                let of_another = others.iter().find_map(|others| others.get(&key));
                if let Err(reason) = self.put(netlink, hook, (name, device), standing, of_another).await {
                    troubles.push(InterfaceWarning { interface: name.clone(), reason });
                    // Without XDP all is done by TC.
                    if hook == XDP_INGRESS { xdp = false } else { well = false }
                }
            }
            if well {
                self.stands.insert(name.clone(), device.index);
                attached.push((device, xdp));
            }
        }
        for name in self.wanted.names.iter().filter(|name| !found.contains_key(*name)) {
            let reason =
                "it is not there: clients on other machines are served by it when it comes; is the name right?";
            troubles.push(InterfaceWarning { interface: name.clone(), reason: reason.into() });
        }
        // Packets that go out where they came in need nobody's leave.
        if self.wanted.names.len() > 1 {
            troubles.extend(attached.iter().filter_map(|(device, _)| doubts(device)));
        }
        self.marks.put(&attached, &devices)?;
        self.first = false;
        Ok(troubles)
    }

    /// Where programs stand that were put there before this agent began.
    fn remember(
        &mut self,
        ours: &BTreeMap<(&'static str, String), PinnedLink>,
        others: &[BTreeMap<(&'static str, String), PinnedLink>],
    ) {
        for ((hook, name), standing) in others.iter().flatten().chain(ours) {
            self.stands.insert(name.clone(), standing.at.interface);
            if *hook != XDP_INGRESS {
                self.links = Some(true);
            }
        }
    }

    async fn filters(&self, netlink: &Handle, interface: u32) -> io::Result<Vec<Filter>> {
        netlink::filters(netlink, interface, |name| read_filter_name(name, self.pins.bpffs()).is_some()).await
    }

    /// Leaves the interfaces that are not wanted, or not any more, and hooks that are not.
    async fn leave<'a>(
        &mut self,
        netlink: &Handle,
        devices: &[Device],
        found: &BTreeMap<String, Device>,
        standing: impl Iterator<Item = (&'a (&'static str, String), &'a PinnedLink)>,
    ) -> io::Result<()> {
        let hooks: Vec<_> = self.wanted.hooks().collect();
        let is_wanted = |hook: &str, name: &str, index: u32| {
            hooks.contains(&hook) && found.get(name).is_some_and(|device| device.index == index)
        };
        // What leads there is left first.
        let mut left: Vec<_> = standing.filter(|((hook, name), it)| !is_wanted(hook, name, it.at.interface)).collect();
        left.sort_by_key(|((hook, _), _)| PACKET_HOOKS.iter().rev().position(|it| it == hook));
        for ((hook, name), standing) in left {
            remove(&standing.pin)?;
            tracing::info!("{hook} does not run on interface {name} ({}) any more", standing.at.interface);
        }
        let left = |index: &u32| found.values().all(|device| device.index != *index);
        for index in self.stands.values().copied().filter(left).collect::<BTreeSet<_>>() {
            if devices.iter().any(|device| device.index == index) && self.links != Some(true) {
                for filter in self.filters(netlink, index).await? {
                    netlink::remove_filter(netlink, &filter).await?;
                }
            }
        }
        self.stands.retain(|name, index| found.get(name).is_some_and(|device| device.index == *index));
        Ok(())
    }

    /// Puts a hook on an interface, where it is not there yet or runs another program. Reasons are for the operator.
    async fn put(
        &mut self,
        netlink: &Handle,
        hook: &'static str,
        (name, device): (&str, &Device),
        standing: Option<&PinnedLink>,
        of_another: Option<&PinnedLink>,
    ) -> Result<(), String> {
        let Some(program) = self.programs.get(hook) else { return Err(format!("{hook} is not loaded")) };
        let failed = |what: &str, error: io::Error| format!("cannot {what} {hook}: {error}");
        let there = |it: &&PinnedLink| it.at.interface == device.index;
        if let Some(standing) = standing.filter(there) {
            if standing.at.program != program.id {
                bpf::update_link(standing.link.as_fd(), program.fd.as_fd())
                    .map_err(|error| failed("replace the program of", error))?;
            }
            return Ok(());
        }
        let pin = self.pins.interface_link(hook, name);
        if let Some(other) = of_another.filter(there) {
            bpf::update_link(other.link.as_fd(), program.fd.as_fd())
                .map_err(|error| failed("replace the program of", error))?;
            // In one step too: whichever version starts after a crash here finds it once.
            return fs::rename(&other.pin, &pin).map_err(|error| failed("take over the link of", error));
        }
        let made = if hook == XDP_INGRESS {
            if let Some(other) = device.xdp {
                return Err(format!(
                    "there is an XDP program on it already, {other}, which stays: established connections go by TC, which \
                     is slower; see whose it is with `bpftool prog show id {other}`"
                ));
            }
            bpf::create_interface_link(program.fd.as_fd(), device.index, attach_type(hook), NATIVE).map_err(
                |error| match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP | libc::EINVAL) => format!(
                        "its driver cannot run XDP programs itself, or not with this MTU or these queues ({error}): \
                         established connections go by TC, which is slower; without --xdp native nothing is missed"
                    ),
                    _ => failed("attach", error),
                },
            )?
        } else if self.links == Some(false) {
            return self.put_filter(netlink, hook, (name, device)).await;
        } else {
            match bpf::create_interface_link(program.fd.as_fd(), device.index, attach_type(hook), 0) {
                // Before Linux 6.6.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.links.is_none() => {
                    self.links = Some(false);
                    return self.put_filter(netlink, hook, (name, device)).await;
                }
                made => made.map_err(|error| failed("attach", error))?,
            }
        };
        if hook != XDP_INGRESS {
            self.links = Some(true);
        }
        pinned_link::pin(made, &pin).map_err(|error| failed("pin the link of", error))?;
        tracing::info!("{hook} runs on interface {}", device.name);
        Ok(())
    }

    async fn put_filter(&self, netlink: &Handle, hook: &str, (name, device): (&str, &Device)) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot attach {hook} by clsact: {error}");
        let (program, egress) = (&self.programs[hook], hook == "tc_egress");
        let filters = self.filters(netlink, device.index).await.map_err(failed)?;
        let ours = filters.iter().find(|filter| filter.egress == egress);
        if ours.is_some_and(|filter| filter.program == program.id) {
            return Ok(());
        }
        let filter_name = filter_name(hook, name, self.pins.bpffs());
        let at = (device.index, egress);
        let put = netlink::put_filter(netlink, at, &filter_name, program.fd.as_fd(), ours.is_some()).await;
        put.map_err(failed)?;
        tracing::info!("{hook} runs on interface {}, by a filter of clsact", device.name);
        Ok(())
    }

    /// Pins the programs, so that whoever looks at the hooks finds them.
    fn programs_pinned(&self) -> Result<(), Error> {
        for (hook, program) in &self.programs {
            let pin = self.pins.program(hook);
            let pinned = remove(&pin).and_then(|_| bpf::pin(program.fd.as_fd(), &pin));
            pinned.map_err(|error| Error::kernel(format!("pin the program of {hook}"), &error))?;
        }
        Ok(())
    }
}

/// What is in the way of clients that come by an interface, though our programs are there.
fn doubts(device: &Device) -> Option<InterfaceWarning> {
    let forwards = |family: &str| {
        let path = format!("/proc/sys/net/{family}/conf/{}/forwarding", device.name);
        // What cannot be read is not known to be wrong.
        fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
    };
    let needed = [("ipv4", device.v4.is_some()), ("ipv6", device.v6.is_some())];
    let off: Vec<_> = needed.into_iter().filter(|(family, has)| *has && !forwards(family)).collect();
    let settings: Vec<_> =
        off.iter().map(|(family, _)| format!("net.{family}.conf.{}.forwarding", device.name)).collect();
    (!off.is_empty()).then(|| InterfaceWarning {
        interface: device.name.clone(),
        reason: format!(
            "{} is 0: clients that come by it reach the backends on this host and those that are reached by the same \
             interface, no others; set it to 1 with sysctl if it is to be more",
            settings.join(" and ")
        ),
    })
}
