//! A hundred megabytes through interfaces with different MTUs. Hosts pass up to 64 KiB to an interface at once (GSO),
//! and no packet may be truncated.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxymatic_tests::eventually::uninterrupted;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Arms, CLIENT, Lab};
use serde_json::Value;

use super::client::{WAIT, greeted};
use super::{Remote, WAYS};
use crate::programs::run_on;

/// Half of them over each family, and each byte comes back.
const MEGABYTES: usize = 100;
const PIECE: usize = 1 << 20;
/// MTUs on the path to the clients, and to the hosts of the two backends.
const MTUS: [[u16; 3]; 3] = [[9_000, 1_500, 9_000], [1_500, 9_000, 1_500], [1_500; 3]];

#[test]
fn transfer_of_100_mb_passes_with_mixed_mtus() -> TestResult {
    for way in WAYS {
        // With a native XDP program a veth accepts neither packets larger than a page nor GSO.
        let mixes = if way.xdp { &MTUS[2..] } else { &MTUS[..2] };
        for mtus in mixes {
            let lab = way.lab()?;
            set(&lab, way.arms, *mtus)?;
            let remote = Remote::start(&lab, way)?;
            for to in way.service_addresses() {
                let (stream, _) = greeted(lab.host(CLIENT), to)?;
                there_and_back(stream).with_context(|| format!("{way:?} {mtus:?} {to}"))?;
            }
            let size = sent(&lab, "lab0")?;
            assert!(way.xdp || size > 4_500.0, "{way:?} {mtus:?}: packets of {size:.0} bytes leave host 1");
            drop(remote);
        }
    }
    Ok(())
}

fn set(lab: &Lab, arms: Arms, [clients, a, b]: [u16; 3]) -> Result<()> {
    for (host, bytes) in [(1, clients.max(a).max(b)), (2, a), (3, b)] {
        lab.mtu(host, 0, bytes)?;
    }
    match arms {
        Arms::One => lab.mtu(CLIENT, 0, clients),
        Arms::Two => [1, CLIENT].into_iter().try_for_each(|host| lab.host(host).mtu(1, clients)),
    }
}

/// Sends half of the bytes, and checks each byte that comes back.
fn there_and_back(mut stream: TcpStream) -> Result<()> {
    let pieces = MEGABYTES / 2;
    let piece = |nth: usize| -> Vec<u8> { (0..PIECE).map(|at| (at * 7 + at / 256 + nth) as u8).collect() };
    let mut writer = stream.try_clone()?;
    writer.set_write_timeout(Some(WAIT))?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || -> Result<()> {
            (0..pieces).try_for_each(|nth| writer.write_all(&piece(nth)))?;
            Ok(writer.shutdown(Shutdown::Write)?)
        });
        let mut heard = vec![0; PIECE];
        for nth in 0..pieces {
            stream.read_exact(&mut heard).with_context(|| format!("megabyte {nth}"))?;
            ensure!(heard == piece(nth), "megabyte {nth} came back as another");
        }
        ensure!(uninterrupted(|| stream.read(&mut heard))? == 0, "more came back than was sent");
        writing.join().map_err(|_| anyhow!("the writer panicked"))?
    })
}

/// The mean size, in bytes, of the packets that an interface of host 1 has sent.
fn sent(lab: &Lab, interface: &str) -> Result<f64> {
    let said: Value = serde_json::from_str(&run_on(lab.host(1), "ip", &["-j", "-s", "link", "show", interface])?)?;
    let count = |what| said[0]["stats64"]["tx"][what].as_f64().with_context(|| said.to_string());
    Ok(count("bytes")? / count("packets")?)
}
