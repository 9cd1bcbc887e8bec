//! What `run` does beside serving: it tests itself, looks at the host, and gives up what it does not need.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, atomic::AtomicBool, mpsc as threads},
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{Health, config::Config, run::forward};
use crate::{
    agent::{Event, SelfTest, WorkerHandles},
    dataplane::kernel::{Interfaces, Pins, cgroup_root},
    host_checks::HostChecks,
    interfaces,
    model::Warning,
    privileges::{self, EnabledFeatures},
    self_test::{self, Helper},
};

/// What `run` takes for it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GuardArgs {
    /// Connect to a service of its own so often, in seconds, to see that services are reached; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "SELF_TEST",
          value_parser = clap::value_parser!(u16).range(..=3600))]
    self_test: u16,
    /// Keep service ports from sockets that ask for no port: adds them to net.ipv4.ip_local_reserved_ports.
    #[arg(long, env = "RESERVE_PORTS", value_parser = clap::builder::BoolishValueParser::new())]
    reserve_ports: bool,
}

/// `proxymatic self-test`: the helper that dials. The agent starts it.
pub(super) fn self_test() -> anyhow::Result<Health> {
    let _ = rustix::thread::set_name(c"self-test");
    privileges::give_up_all().context("cannot give up capabilities")?;
    if let Err(error) = privileges::install(false) {
        tracing::warn!("cannot forbid system calls: {error}");
    }
    self_test::answer().context("cannot make the self-test")?;
    Ok(Health::Well)
}

/// What was made while the process could still do everything.
pub(super) struct Guard {
    pub(super) uses: EnabledFeatures,
    helper: Option<Helper>,
    test: SelfTest,
    /// What is said of interfaces, where there are some to be served.
    interfaces: Option<mpsc::Receiver<Vec<Warning>>>,
}

impl Guard {
    /// Starts the helper of the self-test and who keeps hooks on interfaces, and gives up what is not needed any more.
    pub(super) fn raise(config: &Config, interfaces: Option<(Interfaces, Arc<AtomicBool>)>) -> anyhow::Result<Self> {
        let uses = EnabledFeatures {
            bypass_mark: config.kernel.bypass_mark != 0,
            file: config.sources.file.is_some(),
            interfaces: interfaces.is_some(),
            other_version: Pins::at(&config.kernel.bpffs).has_other_version(),
        };
        let (helper, test) = helper(config);
        privileges::give_up(uses).context("cannot give up capabilities")?;
        let keep = |(interfaces, serves)| {
            let (report, told) = mpsc::channel(1);
            interfaces::start(interfaces, serves, uses, report).context("cannot start a thread")?;
            anyhow::Ok(told)
        };
        // Before what that thread alone does is forbidden to the others.
        let interfaces = interfaces.map(keep).transpose()?;
        if let Err(error) = privileges::install(uses.other_version) {
            tracing::warn!("cannot forbid system calls that are not needed: {error}; going on without");
        }
        Ok(Self { uses, helper, test, interfaces })
    }

    /// Starts what needs a runtime, or a thread.
    pub(super) fn start(
        self,
        config: &Config,
        helpers: &mut WorkerHandles,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<(EnabledFeatures, SelfTest)> {
        if let Some(helper) = self.helper {
            let (tests, orders) = mpsc::channel(1);
            let (answers, answered) = mpsc::channel(1);
            tokio::spawn(helper.follow(orders, answers));
            tokio::spawn(forward(answered, events.clone(), Event::SelfTestDone));
            helpers.tests = Some(tests);
        }
        if let Some(told) = self.interfaces {
            tokio::spawn(forward(told, events.clone(), Event::Interfaces));
        }
        let (ports, told) = threads::channel();
        let watch = HostChecks {
            cgroup: config.kernel.cgroup.clone().or_else(|| cgroup_root().ok()),
            pins: Pins::at(&config.kernel.bpffs),
            reserved: config.reserved.clone(),
            reserve: config.guard.reserve_ports,
            always: config.kernel.remote.reserved_ports().collect(),
        };
        let events = events.clone();
        // Fails only while this process ends.
        let report = move |warnings| drop(events.blocking_send(Event::HostWarnings(warnings)));
        watch.start(self.uses, told, report).context("cannot start a thread")?;
        helpers.ports = Some((ports, Default::default()));
        Ok((self.uses, self.test))
    }
}

fn helper(config: &Config) -> (Option<Helper>, SelfTest) {
    let every = Duration::from_secs(config.guard.self_test.into());
    if every.is_zero() {
        return (None, SelfTest::Off);
    }
    let root = cgroup_root().ok();
    let served = config.kernel.cgroup.as_deref().or(root.as_deref()).and_then(|path: &Path| path.metadata().ok());
    let inside = served.zip(root.as_deref()).and_then(|(served, root)| self_test::is_inside(served.ino(), root));
    if inside == Some(false) {
        let reason =
            "the agent is outside of the cgroup that is served, where nothing leads to services; start it in it";
        return (None, SelfTest::Impossible(reason.into()));
    }
    match Helper::start() {
        Ok(helper) => {
            let port = helper.port();
            (Some(helper), SelfTest::On { every, port })
        }
        Err(error) => (None, SelfTest::Impossible(format!("its process cannot be started: {error}"))),
    }
}
