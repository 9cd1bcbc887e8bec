//! The eBPF object in a namespace of its own, with one service and without an agent.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use proxymatic_common::maps::{self as declared, MapDef};
use proxymatic_common::{
    Address, Backend, BackendState, Class, Config, CtEntry, Families, Features, FiveTuple, Frontend, HookFlags,
    Interface, InterfaceKind, PROTOCOL_TCP, PROTOCOL_UDP, Policy, Port, PortBit, Reason, Service, Slot, SlotRange,
    SourceCode,
};
use proxymatic_tests::lab::Lab;
use proxymatic_user::dataplane::kernel::Probes;

/// The packet programs.
pub(crate) const PROGRAMS: [&str; 3] = ["tc_ingress", "tc_egress", "xdp_ingress"];
/// The service port.
pub(crate) const PORT: u16 = 1234;
/// The SNAT ports.
pub(crate) const SNAT: (u16, u16) = (61_000, 61_015);

/// A host whose service has one backend of each family, on the other host by default.
pub(crate) struct TestNetns {
    pub(crate) lab: Lab,
    ebpf: Ebpf,
    interface: u32,
}

/// The verdict of a program, and the packet it returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// TC_ACT_* or XDP_*.
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// The backends: 10.77.0.2:8001 and [fd77::2]:8001.
pub(crate) fn backend(v4: bool) -> (Address, Port) {
    (address(if v4 { "10.77.0.2" } else { "fd77::2" }), Port::new(8001))
}

impl TestNetns {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::start(1)?;
        let net = lab.host(1).net();
        // In a test run XDP packets arrive at lo.
        for interface in ["lab0", "lo"] {
            net.sysctl(&format!("net/ipv4/conf/{interface}/forwarding"), "1")?;
            net.sysctl(&format!("net/ipv6/conf/{interface}/forwarding"), "1")?;
        }
        net.ip(&["link", "set", "lab0", "address", "02:00:00:00:00:01"])?;
        for (neighbour, link) in NEIGHBOURS {
            net.ip(&["neighbour", "add", neighbour, "lladdr", link, "dev", "lab0"])?;
        }
        let interface = net.enter(|| nix::net::if_::if_nametoindex("lab0"))??;
        let mut room = Self { ebpf: load()?, lab, interface };
        room.set_up()?;
        Ok(room)
    }

    fn set_up(&mut self) -> Result<()> {
        let config = Config { snat_first: SNAT.0.into(), snat_last: SNAT.1.into(), host_netns: 1, ..Config::default() };
        self.write::<declared::ConfigMap>(0, config)?;
        for host in ["10.77.0.1", "fd77::1"].map(address) {
            self.hash::<declared::Addresses, _, _>()?.insert(host, Class::HOST, 0)?;
        }
        self.interface(InterfaceKind::ATTACHED)?;
        for (id, protocol) in [(0, PROTOCOL_TCP), (1, PROTOCOL_UDP)] {
            let bit = PortBit::of(Port::new(PORT), protocol).context("no bit")?;
            self.write::<declared::Ports>(bit.word, bit.mask)?;
            let frontend = Frontend::new(Class::HOST, Port::new(PORT), protocol);
            self.hash::<declared::Frontends, _, _>()?.insert(frontend, id, 0)?;
            let service = Service::new(Policy::LEASTCONN, SourceCode::FILE);
            self.service(id, Service { features: Features::EXPOSE, ..service })?;
            self.write::<declared::SlotRanges>(id, SlotRange::new(1, 2, 2 * id).context("no head")?)?;
            for v4 in [true, false] {
                let at = 2 * id + u32::from(v4);
                self.write::<declared::Slots>(at, Slot::new(at, 1))?;
                let (address, port) = backend(v4);
                let families = Families::of(address);
                let state = BackendState::ACTIVE;
                let new = Backend { address, port, families, state, weight: 1, service: id, ..Backend::free(1) };
                self.write::<declared::Backends>(at, Backend { inverse_weight: Backend::inverse_weight(1), ..new })?;
            }
        }
        Ok(())
    }

    /// Changes all backends.
    pub(crate) fn backends(&mut self, change: impl Fn(&mut Backend)) -> Result<()> {
        for id in 0..4 {
            let mut backend: Backend = self.read::<declared::Backends, _>(id)?;
            change(&mut backend);
            self.write::<declared::Backends>(id, backend)?;
        }
        Ok(())
    }

    /// Changes the settings of a service: 0 is TCP, 1 is UDP.
    pub(crate) fn service(&mut self, id: u32, service: Service) -> Result<()> {
        self.write::<declared::Services>(id, service)
    }

    /// Runs a program on a packet that arrives at the interface.
    pub(crate) fn run(&self, program: &str, packet: &[u8]) -> Result<Done> {
        self.run_as(program, packet, 0)
    }

    /// Runs a program on a packet that stands for several segments of this size (GSO).
    pub(crate) fn run_as(&self, program: &str, packet: &[u8], gso_size: u32) -> Result<Done> {
        let mut out = vec![0; 65_536];
        // struct __sk_buff: all zero except the fields that may be set.
        let mut context = [0; 184];
        context[40..44].copy_from_slice(&self.interface.to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let run = || -> Result<_> {
            let mut options = TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            };
            let done = match self.ebpf.program(program).context("no such program")? {
                Program::SchedClassifier(program) => program.test_run(options)?,
                Program::Xdp(program) => {
                    options.ctx_in = None;
                    program.test_run(options)?
                }
                _ => anyhow::bail!("{program} is of another kind"),
            };
            Ok((done.return_value, done.data_size_out as usize))
        };
        let (verdict, length) = self.lab.host(1).net().enter(run)??;
        out.truncate(length);
        Ok(Done { verdict, packet: out })
    }

    /// Returns the entry of an open connection that a packet belongs to.
    pub(crate) fn connection(&mut self, key: &FiveTuple) -> Result<Option<CtEntry>> {
        Ok(self.hash::<declared::Conntrack, _, _>()?.get(key, 0).ok())
    }

    /// Returns the entry of a half-open connection that a packet belongs to.
    pub(crate) fn handshake(&mut self, key: &FiveTuple) -> Result<Option<CtEntry>> {
        Ok(self.hash::<declared::CtHalfOpen, _, _>()?.get(key, 0).ok())
    }

    /// Returns all counted verdicts by name.
    pub(crate) fn counted(&mut self) -> Result<Vec<(&'static str, u64)>> {
        let rows: Array<_, [u64; 64]> = Array::try_from(self.map(declared::CountersMap::NAME)?)?;
        let mut all = [0; 64];
        for row in rows.iter() {
            for (sum, n) in all.iter_mut().zip(row?) {
                *sum += n;
            }
        }
        let named = Reason::ALL.iter().map(|reason| (reason.name(), all[*reason as usize]));
        Ok(named.filter(|(_, n)| *n > 0).collect())
    }

    /// Returns how many connections of a backend were opened and closed.
    pub(crate) fn load(&mut self, backend: u32) -> Result<(u64, u64)> {
        let load: [u64; 16] = self.read::<declared::BackendStatsMap, _>(backend)?;
        Ok((load[0], load[1]))
    }

    /// Runs a closure in the namespace of the host.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.lab.host(1).net().enter(work)
    }

    /// Gives listeners precedence over services.
    pub(crate) fn look_for_listeners(&mut self) -> Result<()> {
        let config: Config = self.read::<declared::ConfigMap, _>(0)?;
        self.write::<declared::ConfigMap>(0, Config { hook_flags: HookFlags::LISTENERS, ..config })?;
        // `bound` of the TCP service: its port was bound since the last sweep.
        let mut load = [0_u64; 16];
        load[12] = 1;
        self.write::<declared::ServiceStatsMap>(0, load)
    }

    /// Sets many SNAT ports instead of few.
    pub(crate) fn more_ports(&mut self) -> Result<()> {
        let config: Config = self.read::<declared::ConfigMap, _>(0)?;
        self.write::<declared::ConfigMap>(0, Config { snat_first: 40_000, snat_last: 64_999, ..config })
    }

    /// Sets the kind of the interface.
    pub(crate) fn interface(&mut self, kind: InterfaceKind) -> Result<()> {
        let (number, v4, v6) = (self.interface, address("10.77.0.1"), address("fd77::1"));
        Ok(self.hash::<declared::Interfaces, _, _>()?.insert(number, Interface { kind, mtu: 1500, v4, v6 }, 0)?)
    }

    /// Stops serving the interface.
    pub(crate) fn forget_interface(&mut self) -> Result<()> {
        let number = self.interface;
        Ok(self.hash::<declared::Interfaces, _, _>()?.remove(&number)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    pub(crate) fn hash<D: MapDef<Key = K, Value = V>, K: Pod, V: Pod>(
        &mut self,
    ) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(HashMap::try_from(self.map(D::NAME)?)?)
    }

    pub(crate) fn write<D: MapDef>(&mut self, at: u32, value: impl Pod) -> Result<()> {
        Ok(Array::try_from(self.map(D::NAME)?)?.set(at, value, 0)?)
    }

    fn read<D: MapDef, V: Pod>(&mut self, at: u32) -> Result<V> {
        Ok(Array::try_from(self.map(D::NAME)?)?.get(&at, 0)?)
    }
}

/// The host's neighbours, with their link addresses.
const NEIGHBOURS: [(&str, &str); 4] = [
    ("10.77.0.2", "02:00:00:00:00:02"),
    ("fd77::2", "02:00:00:00:00:02"),
    ("10.77.0.9", "02:00:00:00:00:09"),
    ("fd77::9", "02:00:00:00:00:09"),
];

/// Loads the object as the agent does, with small maps of its own and the packet programs only.
pub(crate) fn load() -> Result<Ebpf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/proxymatic-hooks.o");
    let mut probes = Probes::open()?;
    let [has_retval, has_mptcp, has_coarse] =
        ["set_retval", "mptcp", "coarse"].map(|probe| u32::from(probes.loads(probe).is_ok()));
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_RETVAL", &has_retval, true);
    loader.override_global("HAS_MPTCP", &has_mptcp, true);
    loader.override_global("HAS_COARSE", &has_coarse, true);
    let small = 1_024.try_into()?;
    for map in declared::ALL.iter().filter(|map| map.max > 4_096 && map.name != declared::Events::NAME) {
        loader.map_max_entries(map.name, small);
    }
    let mut ebpf = loader.load_file(&path).with_context(|| format!("load {}", path.display()))?;
    for name in PROGRAMS {
        let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let mut load = || match program {
            Program::SchedClassifier(program) => SchedClassifier::load(program),
            Program::Xdp(program) => Xdp::load(program),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        // The end of a process of another test may interrupt the verifier by a signal; the agent handles that too.
        let interrupted = |error: &ProgramError| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock);
        let mut loaded = load();
        while loaded.as_ref().is_err_and(interrupted) {
            loaded = load();
        }
        loaded.with_context(|| format!("load {name}"))?;
    }
    ensure!(ebpf.programs().count() > PROGRAMS.len(), "not the whole object");
    Ok(ebpf)
}
