//! `proxymatic run`: puts the agent together, and says when to stop.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::maps::{Backends, MapDef as _, Services, Slots};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Health, PinArgs,
    config::{self, Config, LocalListenerArg, LoopbackArg, SettingsArgs},
    endpoint::{self, EndpointArgs, LogFormat},
    hardening::{Guard, GuardArgs},
    legacy_flags::ReplacedArgs,
    remote::RemoteArgs,
    sources::SourceArgs,
    state, usage,
};
use crate::{
    addresses,
    agent::{Agent, Event, WorkerHandles},
    backend_probe,
    dataplane::kernel::{Events, HookLog, Kernel, Pins},
    privileges::{self, EnabledFeatures, Thread},
    sockets::Sweeper,
    source::SourceId,
    surface,
};

/// What `run` takes. Names, variables and defaults that `meltwater/proxymatic` had are kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
    /// Log every map write too.
    #[arg(long, short = 'v', env = "VERBOSE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) verbose: bool,
    /// The cgroup2 folder whose sockets are served [default: the root of the host's tree].
    #[arg(long, value_name = "DIR", env = "CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// From which network namespaces localhost leads to services.
    #[arg(long, value_enum, default_value = "host", env = "LOOPBACK")]
    pub(super) loopback: LoopbackArg,
    #[command(flatten)]
    pub(super) wishes: SettingsArgs,
    /// Whether a program that listens on a service port itself comes before the service.
    #[arg(long, value_enum, default_value = "local-wins", env = "LOCAL_LISTENER")]
    pub(super) local_listener: LocalListenerArg,
    /// Sockets with this SO_MARK are left alone; decimal or 0x...; 0 for none.
    #[arg(long, value_name = "MARK", default_value = "0", value_parser = mark, env = "BYPASS_MARK")]
    pub(super) bypass_mark: u32,
    /// Tell one of so many connections as an event; 0 for none. What fails or is refused is told anyway.
    #[arg(long, value_name = "N", default_value_t = 0, env = "SAMPLE")]
    pub(super) sample: u32,
    /// Have the hooks log each connection to a service that they refuse, and with --verbose what they do with each. They run
    /// other programs then, which take longer. For finding out, not for every day.
    #[arg(long, env = "BPF_LOG")]
    pub(super) bpf_log: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    #[command(flatten)]
    pub(super) guard: GuardArgs,
    /// Where to keep what the sources said last, for a boot while they are away; empty for nowhere.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/proxymatic/state.json", env = "STATE_FILE")]
    pub(super) state_file: OsString,
    /// How many services fit. Maps that are pinned already keep their size.
    #[arg(long, value_name = "N", default_value_t = Services::MAX)]
    pub(super) max_services: u32,
    /// How many backends fit.
    #[arg(long, value_name = "N", default_value_t = Backends::MAX)]
    pub(super) max_backends: u32,
    /// How many slots fit: one for each backend where weights are equal.
    #[arg(long, value_name = "N", default_value_t = Slots::MAX)]
    pub(super) max_slots: u32,
    #[command(flatten)]
    replaced: ReplacedArgs,
}

/// Marks are written in hexadecimal by the tools that set them.
fn mark(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16))
}

/// How many events a watcher may be behind before it loses some.
const HAPPENINGS: usize = 1024;

/// How often the agent looks round: heartbeat, quarantine, ejected backends.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(args: Args, pins: &PinArgs) -> anyhow::Result<Health> {
    let config = config::check(&args, pins).map_err(usage::join_errors)?;
    abort_on_panic();
    start_log(config.verbose, config.log_format);
    for warning in args.replaced.warnings() {
        tracing::warn!("{warning}");
    }
    let listener = config.endpoint.bind(&Pins::at(&config.kernel.bpffs))?;
    let mut kernel = Kernel::start(&config.kernel)?;
    let log = kernel.take_log();
    let guard = Guard::raise(&config, kernel.take_interfaces())?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Large answers are read one step after the other; each thread keeps the heap that the largest one took.
    runtime.enable_all().max_blocking_threads(2);
    // And they stand back for the loop, where an event may be waiting: on Linux niceness is each thread's own.
    let uses = guard.uses;
    runtime.thread_name(Thread::Readers.name()).on_thread_start(move || {
        let _ = rustix::process::nice(5);
        privileges::drop_to(Thread::Readers, uses).expect("capabilities can be given up");
    });
    let runtime = runtime.build().context("cannot start tokio")?;
    runtime.block_on(async {
        tokio::spawn(pass_on_log(log));
        serve(config, kernel, guard, listener).await
    })?;
    Ok(Health::Well)
}

/// A panic in one task would leave an agent that looks alive and follows nothing. Better dead: the data plane goes on,
/// and whoever supervises the agent starts it again.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn start_log(verbose: bool, format: LogFormat) {
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,proxymatic={level},proxymatic_user={level}"));
    // A second start in one process is a test's; the first log is as good.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => log.with_ansi(terminal).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

async fn serve(mut config: Config, kernel: Kernel, guard: Guard, listener: Option<TcpListener>) -> anyhow::Result<()> {
    let (events, inbox) = mpsc::channel(64);
    let mut helpers = helpers(&config, guard.uses, &events)?;
    let (uses, test) = guard.start(&config, &mut helpers, &events)?;
    let agent = Agent::adopt(kernel, &config.sources.ids())?
        .with_workers(helpers)
        .with_settings(config.wishes)
        .with_self_test(test);
    let (agent, last_write) = state::keep(config.state, agent, &events)?;
    if let Some(marathon) = &mut config.sources.marathon {
        marathon.adopted = agent.adopted(SourceId::Marathon);
    }
    if let Some(registrator) = &mut config.sources.registrator {
        registrator.adopted = agent.adopted(SourceId::Registrator);
    }
    tracing::info!(
        "attached; adopted {} services, {} backends; reading {}",
        agent.tables().frontends().len(),
        agent.tables().backends().len(),
        config.sources
    );
    let (watchers, _) = broadcast::channel(HAPPENINGS);
    let agent = agent.with_subscribers(watchers.clone());
    let (status, latest) = watch::channel(agent.status(Instant::now()));
    if let Some(listener) = listener {
        endpoint::serve(listener, &config.kernel.bpffs, latest.clone())?;
    }
    surface::serve(&config.socket, latest, watchers)
        .await
        .with_context(|| format!("cannot listen on {}; name another path with --socket", config.socket.display()))?;
    let (reports, heard) = mpsc::channel(8);
    config.sources.start(&reports);
    tokio::spawn(forward(heard, events.clone(), Event::Source));
    tokio::spawn(tick(events.clone()));
    tokio::spawn(stop_on_signal(events, config.endpoint.drain)?);
    // All other threads are there, and all that listens does.
    privileges::drop_to(Thread::Loop, uses).context("cannot give up capabilities")?;
    agent.run(inbox, status).await;
    last_write.done().await;
    // The pins stay; the socket would only lead nowhere.
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// Passes on what the hooks log, if they do.
async fn pass_on_log(log: Option<HookLog>) {
    if let Some(log) = log
        && let Err(error) = log.follow().await
    {
        tracing::error!("what the hooks log cannot be read: {error}");
    }
}

/// Starts what listens to the kernel, and what the agent has done for it.
fn helpers(config: &Config, uses: EnabledFeatures, events: &mpsc::Sender<Event>) -> anyhow::Result<WorkerHandles> {
    let pins = Pins::at(&config.kernel.bpffs);
    tokio::spawn(listen(Events::open(&pins)?, events.clone()));
    let (changed, addresses) = mpsc::channel(1);
    tokio::spawn(addresses::follow(changed));
    tokio::spawn(forward(addresses, events.clone(), Event::Addresses));
    let (probes, orders) = mpsc::unbounded_channel();
    let (answers, answered) = mpsc::channel(8);
    tokio::spawn(backend_probe::follow(orders, answers, config.kernel.bypass_mark));
    tokio::spawn(forward(answered, events.clone(), Event::ProbeSucceeded));
    let (sweeps, jobs) = mpsc::channel(1);
    let events = events.clone();
    // Fails only while this process ends.
    let report = move |report| drop(events.blocking_send(Event::SweepDone(Box::new(report))));
    Sweeper::open(&pins)?.start(uses, jobs, report).context("cannot start a thread")?;
    Ok(WorkerHandles { probes: Some(probes), sweeps: Some(sweeps), ..WorkerHandles::default() })
}

pub(super) async fn forward<T>(mut heard: mpsc::Receiver<T>, events: mpsc::Sender<Event>, event: impl Fn(T) -> Event) {
    while let Some(one) = heard.recv().await {
        if events.send(event(one)).await.is_err() {
            return;
        }
    }
}

async fn listen(mut told: Events, events: mpsc::Sender<Event>) {
    let mut unread = 0;
    loop {
        match told.next().await {
            Ok(batch) => {
                if events.send(Event::HookEvents(batch)).await.is_err() {
                    return;
                }
            }
            // Each tick looks for what would have been told.
            Err(error) => return tracing::error!("cannot read the events of the hooks: {error}"),
        }
        if told.unread() != unread {
            unread = told.unread();
            tracing::warn!("{unread} events of the hooks could not be read: they are of another version");
        }
    }
}

async fn tick(events: mpsc::Sender<Event>) {
    let mut clock = interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        if events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

/// Handlers are in place when this returns: a signal that comes earlier than the future runs is not lost. A second signal
/// ends the drain.
fn stop_on_signal(events: mpsc::Sender<Event>, drain: Duration) -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        let when = if drain.is_zero() { String::new() } else { format!(" in {} s", drain.as_secs()) };
        tracing::info!("{name}: leaving{when}; the data plane stays (`proxymatic detach` removes it)");
        if !drain.is_zero() {
            let _ = events.send(Event::Drain).await;
            tokio::select! {
                () = sleep(drain) => {}
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
        let _ = events.send(Event::Stop).await;
    })
}
