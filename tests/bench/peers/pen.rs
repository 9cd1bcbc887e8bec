//! Pen, as proxymatic starts it: one process for each service. `pen.md` lists the differences.

use std::{fmt::Write as _, fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use proxymatic_tests::process::Process;

use super::task::{Service, Task};
use crate::programs::program;

/// proxymatic's `--pen-servers`.
const SERVERS: usize = 64;

/// The file of one service, as the template writes it.
pub(crate) fn config(service: &Service, backend: Ipv4Addr) -> Result<String> {
    let mut text = String::new();
    for slot in 0..service.backends.len().max(SERVERS) {
        match service.backends.get(slot) {
            Some(port) => writeln!(text, "server {slot} address {backend} port {port} weight 500")?,
            None => writeln!(text, "server {slot} address 0.0.0.0 port 0 weight 0 max 0 hard 0")?,
        }
    }
    Ok(text)
}

/// Returns the command line of one service. Its files are beside its configuration.
pub(crate) fn arguments(service: &Service, file: &str) -> Vec<String> {
    let plain = ["-f", "-r", "-W", "-u", "root", "-x", "8192", "-c", "8192", "-F", file, "-p"];
    let mut arguments: Vec<String> = plain.map(str::to_owned).into();
    arguments.extend([format!("{file}.pid"), "-C".into(), format!("{file}.ctl")]);
    arguments.extend(service.udp.then(|| "-U".to_owned()));
    arguments.push(service.port.to_string());
    arguments
}

pub(super) fn start(task: &Task<'_>) -> Result<Vec<Process>> {
    fs::set_permissions(&task.folder, fs::Permissions::from_mode(0o777))?;
    let pen = program("pen")?;
    let one = |service: &Service| -> Result<Process> {
        let kind = if service.udp { "udp" } else { "tcp" };
        let file = task.write(&format!("pen-{}-{kind}.cfg", service.port), &config(service, task.backend)?)?;
        let arguments = arguments(service, &file);
        task.host.spawn(&pen, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    task.services.iter().map(one).collect()
}
