//! What the hooks log where the operator asks for it (`--bpf-log`): lines from a ring buffer of their own, to the agent's log.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

use crate::dataplane::Error;

/// The reading end of the hooks' log. The ring buffer goes with the programs: it is not pinned.
pub struct HookLog(EbpfLogger<Told>);

impl std::fmt::Debug for HookLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookLog")
    }
}

impl HookLog {
    /// Of an object that is loaded, and whose programs are not yet.
    ///
    /// # Errors
    /// Its hooks do not log.
    pub(super) fn of(object: &mut Ebpf) -> Result<Self, Error> {
        let logger = EbpfLogger::init_with_logger(object, Told);
        logger.map(Self).map_err(|error| Error::kernel("read the log of the hooks", &error))
    }

    /// Passes on what they log, for as long as this process runs. Within a tokio runtime.
    ///
    /// # Errors
    /// The ring buffer cannot be waited for.
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

/// Takes the lines to where the agent's own go.
struct Told;

impl Log for Told {
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

/// As hooks hold them addresses are all of IPv6, and names padded.
fn readable(line: &str) -> String {
    line.replacen("::ffff:", "", 1).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_written_as_one() {
        let line = "::ffff:127.0.0.1 port 1234 protocol 6 of process 42: service 0 refused, no_backend      ";
        assert_eq!(readable(line), "127.0.0.1 port 1234 protocol 6 of process 42: service 0 refused, no_backend");
        assert_eq!(readable("::1 port 1 full "), "::1 port 1 full");
    }
}
