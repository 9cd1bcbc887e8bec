//! `proxymatic run`: assembles the agent, and stops it on a signal.

use std::{
    net::TcpListener,
    sync::mpsc as threads,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Outcome, PinArgs,
    config::{self, Args, Config},
    endpoint::{self, LogFormat},
    forward::forward,
    hardening::Guard,
    state, usage,
};
use crate::{
    addresses,
    agent::{Agent, Event, WorkerHandles},
    backend_probe,
    dataplane::kernel::{Events, HookLog, Kernel, Pins},
    privileges::{self, EnabledFeatures, Thread},
    sockets::{NetnsPublisher, Sweeper},
    surface,
};

/// The number of events that a watcher may be behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

/// The interval of the agent's periodic checks: heartbeat, quarantine, ejected backends.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(args: Args, pins: &PinArgs) -> anyhow::Result<Outcome> {
    let config = config::check(&args, pins).map_err(usage::join_errors)?;
    abort_on_panic();
    start_log(config.verbose, config.log_format);
    for warning in args.legacy.warnings() {
        tracing::warn!("{warning}");
    }
    let listener = config.endpoint.bind(&Pins::at(&config.kernel.bpffs))?;
    let mut kernel = Kernel::start(&config.kernel)?;
    let log = kernel.take_log();
    let guard = Guard::set_up(&config, kernel.take_interfaces())?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Large answers are parsed one after the other; each thread keeps the heap that the largest one took.
    runtime.enable_all().max_blocking_threads(2);
    // The low priority of these threads favours the loop, where an event may be waiting: on Linux each thread has its own
    // niceness.
    let uses = guard.uses;
    runtime.thread_name(Thread::Readers.name()).on_thread_start(move || {
        let _ = rustix::process::nice(5);
        privileges::drop_to(Thread::Readers, uses).expect("capabilities can be given up");
    });
    let runtime = runtime.build().context("cannot start tokio")?;
    runtime.block_on(async {
        tokio::spawn(forward_log(log));
        serve(config, kernel, guard, listener).await
    })?;
    Ok(Outcome::Ok)
}

/// Aborts the process on a panic. A panic in one task would leave an agent that looks alive but follows nothing. After
/// an abort the data plane goes on, and the supervisor restarts the agent.
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
    // Only a test starts the log a second time in one process; the first log stays.
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
        .with_settings(config.settings)
        .with_self_test(test);
    let (agent, last_write) = state::keep(config.state, agent, &events)?;
    config.sources.set_adopted(|source| agent.adopted(source));
    tracing::info!(
        "attached; adopted {} services, {} backends; reading {}",
        agent.tables().frontends().len(),
        agent.tables().backends().len(),
        config.sources
    );
    let (watchers, _) = broadcast::channel(EVENT_BACKLOG);
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
    // All other threads have started, and all listeners are open.
    privileges::drop_to(Thread::Loop, uses).context("cannot give up capabilities")?;
    agent.run(inbox, status).await;
    last_write.done().await;
    // The pins stay; the socket would have no listener.
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// Logs what the hooks log, if they log.
async fn forward_log(log: Option<HookLog>) {
    if let Some(log) = log
        && let Err(error) = log.follow().await
    {
        tracing::error!("cannot read the log of the hooks: {error}");
    }
}

/// Starts the workers that listen to the kernel or work for the agent.
fn helpers(config: &Config, uses: EnabledFeatures, events: &mpsc::Sender<Event>) -> anyhow::Result<WorkerHandles> {
    let pins = Pins::at(&config.kernel.bpffs);
    tokio::spawn(listen(Events::open(&pins)?, events.clone()));
    let (changed, addresses) = mpsc::channel(1);
    tokio::spawn(addresses::follow(changed));
    tokio::spawn(forward(addresses, events.clone(), Event::Addresses));
    let (probes, orders) = mpsc::unbounded_channel();
    let (answers, answered) = mpsc::channel(8);
    let (results, result) = mpsc::channel(8);
    tokio::spawn(backend_probe::follow(orders, answers, results, config.kernel.bypass_mark));
    tokio::spawn(forward(answered, events.clone(), Event::ProbeSucceeded));
    tokio::spawn(forward(result, events.clone(), Event::Probed));
    let (changed, links) = mpsc::channel(1);
    tokio::spawn(addresses::follow_links(changed));
    tokio::spawn(forward(links, events.clone(), |()| Event::LinksChanged));
    let (netns, orders) = threads::channel();
    NetnsPublisher::open(&pins)?.start(uses, orders).context("cannot start a thread")?;
    let (sweeps, jobs) = mpsc::channel(1);
    let events = events.clone();
    // Fails only while this process exits.
    let report = move |report| drop(events.blocking_send(Event::SweepDone(Box::new(report))));
    Sweeper::open(&pins)?.start(uses, jobs, report).context("cannot start a thread")?;
    Ok(WorkerHandles { probes: Some(probes), sweeps: Some(sweeps), netns: Some(netns), ..WorkerHandles::default() })
}

async fn listen(mut hooks: Events, events: mpsc::Sender<Event>) {
    let mut unread = 0;
    loop {
        match hooks.next().await {
            Ok(batch) => {
                if events.send(Event::HookEvents(batch)).await.is_err() {
                    return;
                }
            }
            // The periodic check finds the same without events.
            Err(error) => return tracing::error!("cannot read the events of the hooks: {error}"),
        }
        if hooks.unread() != unread {
            unread = hooks.unread();
            tracing::warn!("cannot decode {unread} events of the hooks: they are of another version");
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

/// Installs the handlers before it returns, so that no signal is lost before the future runs. A second signal ends the
/// drain.
fn stop_on_signal(events: mpsc::Sender<Event>, drain: Duration) -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        let when = if drain.is_zero() { String::new() } else { format!(" in {} s", drain.as_secs()) };
        tracing::info!("{name}: stopping{when}; the data plane stays (`proxymatic detach` removes it)");
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
