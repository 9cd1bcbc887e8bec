//! What `run` does besides serving: it tests itself, checks the host, and drops privileges.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, atomic::AtomicBool, mpsc as threads},
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{Outcome, config::Config, forward::forward};
use crate::{
    agent::{Event, SelfTest, WorkerHandles},
    dataplane::kernel::{Interfaces, Pins, cgroup_root},
    host_checks::HostChecks,
    interfaces,
    model::Warning,
    privileges::{self, EnabledFeatures},
    self_test::{self, Helper},
    source::SourceId,
};

/// `proxymatic self-test`: the helper process that connects. The agent starts it.
pub(super) fn self_test() -> anyhow::Result<Outcome> {
    let _ = rustix::thread::set_name(c"self-test");
    privileges::give_up_all().context("cannot give up capabilities")?;
    if let Err(error) = privileges::install(false) {
        tracing::warn!("cannot install the seccomp filter: {error}");
    }
    self_test::answer().context("cannot make the self-test")?;
    Ok(Outcome::Ok)
}

/// What the process sets up while it still has all its privileges.
pub(super) struct Guard {
    pub(super) uses: EnabledFeatures,
    helper: Option<Helper>,
    test: SelfTest,
    /// Receives warnings about interfaces; `None` if no interface is served.
    interfaces: Option<mpsc::Receiver<Vec<Warning>>>,
}

impl Guard {
    /// Starts the helper of the self-test and the thread that keeps hooks on interfaces, then drops privileges.
    pub(super) fn set_up(config: &Config, interfaces: Option<(Interfaces, Arc<AtomicBool>)>) -> anyhow::Result<Self> {
        let uses = EnabledFeatures {
            bypass_mark: config.kernel.bypass_mark != 0,
            file: config.sources.has(SourceId::File),
            interfaces: interfaces.is_some(),
            other_version: Pins::at(&config.kernel.bpffs).has_other_version(),
        };
        let (helper, test) = helper(config);
        privileges::give_up(uses).context("cannot give up capabilities")?;
        let keep = |(interfaces, serves)| {
            let (report, warnings) = mpsc::channel(1);
            interfaces::start(interfaces, serves, uses, report).context("cannot start a thread")?;
            anyhow::Ok(warnings)
        };
        // Before the seccomp filter, which allows the system calls of that thread to no other thread.
        let interfaces = interfaces.map(keep).transpose()?;
        if let Err(error) = privileges::install(uses.other_version) {
            tracing::warn!("cannot install the seccomp filter: {error}; continuing without it");
        }
        Ok(Self { uses, helper, test, interfaces })
    }

    /// Starts the parts that need the runtime or a thread.
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
        if let Some(warnings) = self.interfaces {
            tokio::spawn(forward(warnings, events.clone(), Event::Interfaces));
        }
        let (ports, changed) = threads::channel();
        let watch = HostChecks {
            cgroup: config.kernel.cgroup.clone().or_else(|| cgroup_root().ok()),
            pins: Pins::at(&config.kernel.bpffs),
            reserved: config.reserved.clone(),
            reserve: config.guard.reserve_ports,
            always: config.kernel.remote.reserved_ports().collect(),
        };
        let events = events.clone();
        // Fails only while this process exits.
        let report = move |warnings| drop(events.blocking_send(Event::HostWarnings(warnings)));
        watch.start(self.uses, changed, report).context("cannot start a thread")?;
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
        let reason = "the agent runs outside of the served cgroup, so its own connections do not reach services; start it inside";
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
