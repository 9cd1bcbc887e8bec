//! Forwards the log of the hooks (`--bpf-log`) from its ring buffer to the agent's log.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

use crate::dataplane::Error;

/// The reader of the hooks' log. Its ring buffer is not pinned, so it ends with the programs.
pub struct HookLog(EbpfLogger<ForwardToTracing>);

impl std::fmt::Debug for HookLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookLog")
    }
}

impl HookLog {
    /// Opens the log of an object whose programs are not loaded yet.
    ///
    /// # Errors
    /// Fails if the hooks of the object do not log.
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, Error> {
        let logger = EbpfLogger::init_with_logger(object, ForwardToTracing);
        logger.map(Self).map_err(|error| Error::kernel("read the log of the hooks", &error))
    }

    /// Forwards log lines as long as this process runs. Needs a tokio runtime.
    ///
    /// # Errors
    /// Fails if the ring buffer cannot be polled.
    pub async fn follow(self) -> io::Result<()> {
        // SAFETY: the logger owns its descriptor, and keeps that one for as long as it lives.
        let mut log = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

/// Writes log lines of the hooks to the agent's log.
struct ForwardToTracing;

impl Log for ForwardToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = readable(&record.args().to_string());
        match record.level() {
            Level::Error => tracing::error!("hook: {line}"),
            Level::Warn => tracing::warn!("hook: {line}"),
            Level::Info => tracing::info!("hook: {line}"),
            Level::Debug | Level::Trace => tracing::debug!("hook: {line}"),
        }
    }

    fn flush(&self) {}
}

/// Converts v4-mapped addresses to IPv4 and removes padding.
fn readable(line: &str) -> String {
    line.replacen("::ffff:", "", 1).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_address_is_written_as_ipv4() {
        let line = "::ffff:127.0.0.1 port 1234 protocol 6 of process 42: service 0 refused, no_backend      ";
        assert_eq!(readable(line), "127.0.0.1 port 1234 protocol 6 of process 42: service 0 refused, no_backend");
        assert_eq!(readable("::1 port 1 full "), "::1 port 1 full");
    }
}
