//! nginx, its module stream.

use std::fmt::Write as _;

use anyhow::Result;
use proxymatic_tests::process::Process;

use super::task::Task;
use crate::programs::program;

/// The part of the configuration before the services.
const HEAD: &str = include_str!("nginx.conf");
/// The folder of Debian's module.
pub(super) const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn start(task: &Task<'_>) -> Result<Vec<Process>> {
    let connections = task.services.len() + 4096;
    let mut text = format!("load_module {MODULE};\n{HEAD}");
    // Always a file of the benchmark's own, since nginx removes it when it ends.
    writeln!(text, "pid {};", task.folder.join("nginx.pid").display())?;
    writeln!(text, "events {{ worker_connections {connections}; }}\nstream {{")?;
    for (nth, service) in task.services.iter().enumerate() {
        let kilobytes = 64 + 4 * service.backends.len();
        write!(text, "upstream u{nth} {{ least_conn; zone u{nth} {kilobytes}k; ")?;
        service.backends.iter().try_for_each(|port| write!(text, "server {}:{port}; ", task.backend))?;
        let (udp, idle) = if service.udp { (" udp reuseport", "proxy_timeout 20s; ") } else { ("", "") };
        writeln!(text, "}}\nserver {{ listen {}{udp}; {idle}proxy_pass u{nth}; }}", service.port)?;
    }
    text += "}\n";
    let file = task.write("nginx.conf", &text)?;
    let folder = task.folder.to_string_lossy().into_owned();
    Ok(vec![task.host.spawn(&program("nginx")?, &["-c", &file, "-p", &folder, "-g", "daemon off;"])?])
}
