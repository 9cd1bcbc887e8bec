//! HAProxy, as proxymatic configures it.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::Result;
use proxymatic_tests::process::Process;

use super::task::{Service, Task};
use crate::programs::program;

/// The part of the configuration before the services.
const HEAD: &str = include_str!("haproxy.cfg");

/// The whole file, as the template writes it.
pub(crate) fn config<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    backend: Ipv4Addr,
    splice: bool,
) -> Result<String> {
    let mut text = HEAD.to_owned();
    if splice {
        text += "  option splice-auto\n";
    }
    for service in services.into_iter().filter(|it| !it.udp) {
        write!(text, "\nlisten service-{0}\n  bind 0.0.0.0:{0}\n", service.port)?;
        text += "  balance leastconn\n  mode tcp\n  default-server inter 15s\n";
        for port in &service.backends {
            // Marathon's default weight, 500 of 1000, in HAProxy's 256.
            writeln!(text, "  server backend-{backend}-{port} {backend}:{port} weight 128")?;
        }
    }
    Ok(text)
}

pub(super) fn start(task: &Task<'_>, splice: bool) -> Result<Vec<Process>> {
    let file = task.write("haproxy.cfg", &config(&task.services, task.backend, splice)?)?;
    // -db: in the foreground, so that it ends with the benchmark.
    Ok(vec![task.host.spawn(&program("haproxy")?, &["-db", "-f", &file])?])
}
