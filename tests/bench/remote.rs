//! The cost of forwarding for remote clients: by TC and by XDP, compared with netfilter's address translation, HAProxy,
//! plain routing and no forwarding.
//!
//! Three hosts are joined by cables that behave as network cards do: they carry single frames, and a thread for each
//! interface fetches them (threaded NAPI). The threads of the host in the middle, and HAProxy there, have a CPU of
//! their own; clients and servers have the others. The results are a rate, and the CPU time of the host in the middle.

mod clients;
mod frames;
mod hosts;
mod peers;
mod stage;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

pub(crate) use self::clients::{Answer, Call, Pour};
use self::{
    peers::Peer,
    stage::{From, Sample, Stage},
};
use crate::statistics::median;

/// Packets and connections per second through a host, and the cost of a packet and of a connection there.
#[derive(Debug, clap::Parser)]
pub(crate) struct Remote {
    /// Rounds; each measures every peer once, in another order.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Measure only these.
    #[arg(long, value_enum)]
    only: Vec<Peer>,
    /// Also write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The measurements of one peer.
struct Row {
    peer: Peer,
    frames: Vec<Sample>,
    packets: Vec<Sample>,
    connections: Vec<Sample>,
}

impl Remote {
    pub(crate) fn run(&self) -> Result<()> {
        let all = if self.only.is_empty() { Peer::ALL.to_vec() } else { self.only.clone() };
        let mut rows: Vec<_> =
            all.into_iter().map(|peer| Row { peer, frames: vec![], packets: vec![], connections: vec![] }).collect();
        let stage = Stage::set()?;
        let took = Duration::from_secs_f64(self.seconds);
        let count = rows.len();
        for round in 0..self.rounds {
            for step in 0..count {
                // Another peer first each round, so that none always follows the same other.
                let row = &mut rows[(step + round) % count];
                let running = row.peer.start(&stage.lab)?;
                if row.peer.takes_datagrams() {
                    row.frames.push(stage.packets(row.peer, &running, took, From::Card)?);
                    row.packets.push(stage.packets(row.peer, &running, took, From::Sockets)?);
                }
                row.connections.push(stage.connections(row.peer, &running, took)?);
                running.stop(&stage.lab)?;
            }
        }
        self.report(&rows)
    }

    fn report(&self, rows: &[Row]) -> Result<()> {
        println!("medians of {} interleaved rounds of {} s; x: against nftables", self.rounds, self.seconds);
        type Of = fn(&Row) -> &[Sample];
        let tables: [(&str, Of, &str, f64); 3] = [
            ("small packets, as from a card", |row| &row.frames, "ns", 1.0),
            ("small packets of sockets", |row| &row.packets, "ns", 1.0),
            ("connections", |row| &row.connections, "µs", 1e3),
        ];
        for (title, of, word, unit) in tables {
            println!("\n{title:<32} {:>12} {:>6} {:>8} {:>6}", "each second", "x", format!("CPU {word}"), "x");
            let base = rows.iter().find(|it| it.peer == Peer::Nftables).and_then(|it| Summary::of(of(it)));
            for row in rows {
                println!("{:<32} {}", row.peer.name(), columns(Summary::of(of(row)), base, unit));
            }
        }
        println!(
            "\nCPU is that of the host in the middle, for one packet or one connection; x of it is how much less."
        );
        if let Some(file) = &self.json {
            let whole = |samples: &[Sample]| -> Value {
                Summary::of(samples).map_or(Value::Null, |it| {
                    let rates: Vec<_> = samples.iter().map(Sample::rate).collect();
                    json!({ "per_second": it.rate, "cpu_ns": it.cost, "rounds": rates })
                })
            };
            let row = |it: &Row| json!({ "peer": it.peer.name(), "frames": whole(&it.frames), "packets": whole(&it.packets), "connections": whole(&it.connections) });
            fs::write(file, serde_json::to_vec_pretty(&rows.iter().map(row).collect::<Vec<_>>())?)?;
        }
        Ok(())
    }
}

/// Medians of one kind of measurement.
#[derive(Clone, Copy)]
struct Summary {
    /// Per second.
    rate: f64,
    /// Nanoseconds of the host in the middle for each.
    cost: f64,
}

impl Summary {
    fn of(samples: &[Sample]) -> Option<Self> {
        let of = |value: fn(&Sample) -> f64| median(&samples.iter().map(value).collect::<Vec<_>>());
        (!samples.is_empty()).then(|| Self { rate: of(Sample::rate), cost: of(Sample::cost) })
    }
}

fn columns(measured: Option<Summary>, base: Option<Summary>, unit: f64) -> String {
    let Some(Summary { rate, cost }) = measured else { return format!("{:>12} {:>6} {:>8} {:>6}", "-", "", "-", "") };
    let ratio = |value: Option<f64>| value.filter(|it| it.is_finite()).map_or(String::new(), |it| format!("{it:.2}"));
    let (faster, less) = (base.map(|it| rate / it.rate), base.map(|it| it.cost / cost));
    format!("{rate:>12.0} {:>6} {:>8.1} {:>6}", ratio(faster), cost / unit, ratio(less))
}
