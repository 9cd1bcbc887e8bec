//! Netlink requests: the interfaces of this host, and clsact filters for kernels without tcx.

use std::{
    future::Future,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    thread,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use nix::libc;
use rtnetlink::{
    Handle, new_connection,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop},
        tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
    },
};

use super::match_names::{Device, Kind};
use crate::addresses::reachable;

/// The priority of our filters. A filter of another kind that has this priority keeps it.
const PRIORITY: u16 = 100;
/// The handle of our filter at this priority.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
/// ETH_P_ALL in network byte order, as the filter's header has it.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
/// The kernel answers at once, so a later answer is a fault.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A clsact filter that runs one of our programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// The index of its interface.
    pub(super) interface: u32,
    /// Whether it sees outgoing packets rather than incoming ones.
    pub(super) egress: bool,
    /// Its name, which shows the owner.
    pub(super) name: String,
    /// The kernel's id of its program.
    pub(super) program: u32,
    header: TcHeader,
}

/// Runs netlink requests on a thread with a runtime of its own, because the caller may be inside a runtime.
pub(super) fn with_netlink<T: Send, F: Future<Output = io::Result<T>>>(
    about: impl FnOnce(Handle) -> F + Send,
) -> io::Result<T> {
    let talk = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = new_connection()?;
            tokio::spawn(connection);
            let talked = tokio::time::timeout(TIMEOUT, about(handle)).await;
            talked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    };
    let talked = thread::scope(|scope| scope.spawn(talk).join());
    talked.unwrap_or_else(|_| Err(io::Error::other("the netlink thread panicked")))
}

/// Returns the interfaces of this network namespace.
pub(super) async fn devices(netlink: &Handle) -> io::Result<Vec<Device>> {
    let links: Vec<_> = netlink.link().get().execute().try_collect().await.map_err(from_rtnetlink)?;
    let mut devices: Vec<_> = links.iter().map(device).collect();
    let addresses: Vec<_> = netlink.address().get().execute().try_collect().await.map_err(from_rtnetlink)?;
    for message in &addresses {
        let device = devices.iter_mut().find(|device| device.index == message.header.index);
        if let (Some(device), Some(address)) = (device, reachable(message)) {
            match address {
                IpAddr::V4(v4) => drop(device.v4.get_or_insert(v4)),
                IpAddr::V6(v6) => drop(device.v6.get_or_insert(v6)),
            }
        }
    }
    Ok(devices)
}

fn device(message: &LinkMessage) -> Device {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut device = Device { index: message.header.index, ethernet, ..Device::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                device.others.extend(properties.iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Controller(master) => device.master = Some(*master),
            LinkAttribute::LinkInfo(about) => {
                device.kind = about.iter().find_map(kind).unwrap_or_default();
            }
            LinkAttribute::Xdp(about) => {
                device.xdp = about.iter().find_map(|about| match about {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device
}

fn kind(about: &LinkInfo) -> Option<Kind> {
    match about {
        LinkInfo::Kind(InfoKind::Bridge) => Some(Kind::Bridge),
        LinkInfo::Kind(InfoKind::Veth | InfoKind::Tun) => Some(Kind::VirtualPort),
        LinkInfo::Kind(_) => Some(Kind::Other),
        _ => None,
    }
}

/// Returns the filters of an interface in both directions for whose names `is_ours` returns true.
pub(super) async fn filters(
    netlink: &Handle,
    interface: u32,
    is_ours: impl Fn(&str) -> bool,
) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    for egress in [false, true] {
        let ask = netlink.traffic_filter(interface as i32).get();
        let ask = if egress { ask.egress() } else { ask.ingress() };
        let messages: Vec<_> = ask.execute().try_collect().await.map_err(from_rtnetlink)?;
        let filters = messages.into_iter().filter_map(|message| filter(message, interface, egress));
        found.extend(filters.filter(|filter| is_ours(&filter.name)));
    }
    Ok(found)
}

fn filter(message: TcMessage, interface: u32, egress: bool) -> Option<Filter> {
    let TcMessage { header, attributes, .. } = message;
    let options = attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let (mut name, mut program) = (None, None);
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(text)) => name = Some(text.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program = Some(*id),
            _ => {}
        }
    }
    Some(Filter { interface, egress, name: name?, program: program?, header })
}

/// Attaches a program to an interface as a clsact filter, or replaces the program of our filter there (`replace`).
/// Creates the clsact qdisc if it is missing.
///
/// # Errors
/// EEXIST if another filter has our priority and handle.
pub(super) async fn put_filter(
    netlink: &Handle,
    (interface, egress): (u32, bool),
    name: &str,
    program: BorrowedFd<'_>,
    replace: bool,
) -> io::Result<()> {
    let mut clsact = TcMessage::with_index(interface as i32);
    clsact.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    clsact.header.parent = TcHandle::CLSACT;
    clsact.attributes.push(TcAttribute::Kind("clsact".into()));
    match ask(netlink, RouteNetlinkMessage::NewQueueDiscipline(clsact), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut filter = TcMessage::with_index(interface as i32);
    let minor = if egress { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
    filter.header.parent = TcHandle { major: u16::MAX, minor };
    filter.header.handle = HANDLE;
    filter.header.info = u32::from(TcHandle { major: PRIORITY, minor: ALL });
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName(name.into()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    filter.attributes.push(TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()));
    let flags = if replace { NLM_F_CREATE } else { NLM_F_CREATE | NLM_F_EXCL };
    ask(netlink, RouteNetlinkMessage::NewTrafficFilter(filter), flags).await
}

/// Removes a filter, if it still exists.
pub(super) async fn remove_filter(netlink: &Handle, filter: &Filter) -> io::Result<()> {
    let mut message = TcMessage::with_index(filter.interface as i32);
    message.header = filter.header.clone();
    match ask(netlink, RouteNetlinkMessage::DelTrafficFilter(message), 0).await {
        Err(error) if [Some(libc::ENOENT), Some(libc::ENODEV)].contains(&error.raw_os_error()) => Ok(()),
        outcome => outcome,
    }
}

async fn ask(netlink: &Handle, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = netlink.clone().request(request).map_err(from_rtnetlink)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
    }
    Ok(())
}

fn from_rtnetlink(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io(),
        error => io::Error::other(error),
    }
}
