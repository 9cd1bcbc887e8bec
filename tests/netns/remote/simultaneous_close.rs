//! Both ends of a connection close it at the same moment, on two processors.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{hint, thread};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Lab, PATIENCE};
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use super::{ROUTED, conntrack, exposed};
use crate::fixtures::cluster::PORT;

/// The number of connections that are closed in this way.
const CONNECTIONS: usize = 4_000;

#[test]
fn simultaneous_fins_count_as_one_close() -> TestResult {
    let lab = ROUTED.lab()?;
    let at = lab.host(2).places_on(0, 8001)[0];
    let listener = lab.host(2).net().enter(|| TcpListener::bind(at))??;
    let _agent = ROUTED.serve(&lab, &exposed("web", "tcp", PORT, &[at], &[]))?;
    close_together(&lab, &listener)?;
    counts_agree(&lab)?;
    Ok(())
}

/// Opens connections one after the other; a thread at each end closes each of them at the same time.
fn close_together(lab: &Lab, listener: &TcpListener) -> Result<()> {
    let to = ROUTED.service_addresses()[0];
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            for nth in 1..=CONNECTIONS {
                let (stream, _) = listener.accept()?;
                meet(&ready, 2 * nth);
                stream.shutdown(Shutdown::Write)?;
                // Dropped after the other end has closed too, so that no RST is sent.
                std::io::copy(&mut &stream, &mut std::io::sink())?;
            }
            Ok(())
        });
        let client = lab.host(CLIENT).net().enter(|| -> Result<()> {
            for nth in 1..=CONNECTIONS {
                let stream = TcpStream::connect(to)?;
                meet(&ready, 2 * nth);
                stream.shutdown(Shutdown::Write)?;
                std::io::copy(&mut &stream, &mut std::io::sink())?;
            }
            Ok(())
        })?;
        client.and(server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?)
    })
}

/// Returns once both threads are here. It spins: waking a thread takes longer than a FIN.
fn meet(ready: &AtomicUsize, both: usize) {
    ready.fetch_add(1, Ordering::SeqCst);
    while ready.load(Ordering::SeqCst) < both {
        hint::spin_loop();
    }
}

/// Waits until as many connections are closed as were opened, by the kernel's counts.
fn counts_agree(lab: &Lab) -> Result<()> {
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let tables = maps.tables()?;
    let id = *tables.backends().keys().next().context("no backend")?;
    let load = maps.load(id).context("no counts")?;
    let waited = eventually_ok("all are closed", PATIENCE, || {
        let (opened, closed) = (load.opened.get(), load.closed.get());
        ensure!(opened == CONNECTIONS as u64 && closed == opened, "{opened} opened, {closed} closed");
        Ok(())
    });
    waited.with_context(|| conntrack(lab))
}
