//! A re-implementation of what `meltwater/proxymatic` does on a change in Marathon: its loop, without the cost of
//! Python.
//!
//! An event of one of three kinds makes it read all of /v2/tasks. It then writes HAProxy's configuration and starts
//! another HAProxy that takes over from the last (`haproxy -f FILE -p PIDFILE -sf PID`), or writes the file of each Pen
//! whose servers differ and sends it SIGHUP (`marathon.py`, `haproxy.py`, `pen.py`; MeltwaterArchive/proxymatic). Three
//! costs are left out, in its favour: it requested the definition of each app's version one after the other, with a
//! cache of 1,024; Mako rendered the file; and it reached Marathon through HAProxy.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxymatic_tests::http::{self, Url};
use serde::Deserialize;

use crate::{
    peers::{Service, haproxy_config, pen_arguments, pen_config},
    programs::program,
};

/// Follows a Marathon, with HAProxy or with Pens.
#[derive(Debug, clap::Parser)]
pub(crate) struct OldProxymatic {
    /// Marathon's URL.
    #[arg(long)]
    marathon: SocketAddr,
    /// The folder of its files.
    #[arg(long)]
    folder: PathBuf,
    /// One Pen for each service instead of HAProxy. A Pen needs 15 MB: this many services only, the first ones.
    #[arg(long)]
    pens: Option<usize>,
}

/// Its --refresh-interval.
const REFRESH: Duration = Duration::from_secs(60);
/// The events that make it read.
const KINDS: [&str; 3] = ["health_status_changed_event", "status_update_event", "api_post_event"];

#[derive(Deserialize)]
struct Listing {
    tasks: Vec<Task>,
}

/// The fields of a task that it reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    host: Ipv4Addr,
    #[serde(default)]
    state: String,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    service_ports: Vec<u16>,
}

type Services = BTreeMap<u16, Vec<u16>>;

#[derive(Default)]
struct State {
    services: Services,
    backend: Option<Ipv4Addr>,
    pens: BTreeMap<u16, (Vec<u16>, Child)>,
}

impl OldProxymatic {
    pub(crate) fn run(&self) -> Result<()> {
        let (tell, told) = mpsc::channel();
        let marathon = self.marathon;
        thread::spawn(move || {
            // The end of the stream ends the loop below.
            let _ = follow(marathon, &tell);
        });
        let mut state = State::default();
        loop {
            self.refresh(&mut state)?;
            match told.recv_timeout(REFRESH) {
                // One read covers all events that came meanwhile.
                Ok(()) => while told.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the event stream has ended"),
            }
        }
    }

    fn refresh(&self, state: &mut State) -> Result<()> {
        let body = http::call("GET", &Url::new(self.marathon, "/v2/tasks"), "")?;
        let listing: Listing = serde_json::from_str(&body)?;
        let mut services = Services::new();
        for task in listing.tasks.iter().filter(|task| task.state != "TASK_KILLING") {
            state.backend = Some(task.host);
            for (service, port) in task.service_ports.iter().zip(&task.ports) {
                services.entry(*service).or_default().push(*port);
            }
        }
        if services == state.services {
            return Ok(());
        }
        let services: Vec<_> =
            services.into_iter().map(|(port, backends)| Service { port, udp: false, backends }).collect();
        let backend = state.backend.context("no task yet")?;
        match self.pens {
            None => self.reload_haproxy(&services, backend)?,
            Some(most) => self.reload_pens(&services[..services.len().min(most)], backend, &mut state.pens)?,
        }
        state.services = services.into_iter().map(|it| (it.port, it.backends)).collect();
        println!("reloaded");
        Ok(())
    }

    fn reload_haproxy(&self, services: &[Service], backend: Ipv4Addr) -> Result<()> {
        let file = self.replace("haproxy.cfg", &haproxy_config(services, backend, false)?)?;
        let pidfile = self.folder.join("haproxy.pid");
        let mut command = Command::new(program("haproxy")?);
        command.args(["-f", &file, "-p"]).arg(&pidfile);
        if let Ok(last) = fs::read_to_string(&pidfile) {
            command.arg("-sf").args(last.split_whitespace());
        }
        let status = command.status()?;
        ensure!(status.success(), "haproxy: {status}");
        Ok(())
    }

    fn reload_pens(
        &self,
        services: &[Service],
        backend: Ipv4Addr,
        pens: &mut BTreeMap<u16, (Vec<u16>, Child)>,
    ) -> Result<()> {
        for service in services {
            let known = pens.get_mut(&service.port);
            if known.as_ref().is_some_and(|(backends, _)| *backends == service.backends) {
                continue;
            }
            let file = self.replace(&format!("pen-{}.cfg", service.port), &pen_config(service, backend)?)?;
            match known {
                Some((backends, child)) => {
                    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGHUP)?;
                    backends.clone_from(&service.backends);
                }
                None => {
                    let child = Command::new(program("pen")?).args(pen_arguments(service, &file)).spawn()?;
                    pens.insert(service.port, (service.backends.clone(), child));
                }
            }
        }
        let gone: Vec<_> = pens.keys().filter(|port| !services.iter().any(|it| it.port == **port)).copied().collect();
        for port in gone {
            if let Some((_, mut child)) = pens.remove(&port) {
                child.kill()?;
                child.wait()?;
            }
        }
        Ok(())
    }

    /// Writes a new file and renames it over the old one, as `renderTemplate` does.
    fn replace(&self, name: &str, text: &str) -> Result<String> {
        let (file, new) = (self.folder.join(name), self.folder.join(format!("{name}.tmp")));
        fs::write(&new, text)?;
        fs::rename(&new, &file)?;
        Ok(file.to_str().context("the folder is not UTF-8")?.to_owned())
    }
}

/// Sends each relevant event.
fn follow(marathon: SocketAddr, tell: &mpsc::Sender<()>) -> Result<()> {
    let mut stream = TcpStream::connect(marathon)?;
    write!(stream, "GET /v2/events HTTP/1.1\r\nHost: {marathon}\r\nAccept: text/event-stream\r\n\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.starts_with("event:") && KINDS.iter().any(|kind| line.contains(kind)) {
            tell.send(())?;
        }
    }
    Ok(())
}
