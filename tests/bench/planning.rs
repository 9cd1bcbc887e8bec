//! The time of a plan on very large tables, without a kernel and without root.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Backend, Protocol, Service, ServiceKey, Settings, State, Weight},
    plan::{Capacity, Desired, MapState, plan, plan_changes},
};

use crate::statistics::median;

/// The time of one plan: from nothing, with nothing to do, and with one task ended.
#[derive(Debug, clap::Parser)]
pub(crate) struct Planning {
    /// Number of services.
    #[arg(long, default_value_t = 5_000)]
    services: u16,
    /// Number of backends of each.
    #[arg(long, default_value_t = 4)]
    backends: u8,
    /// Number of plans of each kind.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
}

impl Planning {
    pub(crate) fn run(&self) -> Result<()> {
        let capacity = Capacity { backends: 1 << 20, services: 1 << 16, ..Capacity::default() };
        let mut desired = self.desired();
        let mut tables = MapState::new(capacity);
        println!("{} services of {} backends; medians of {} in ms", self.services, self.backends, self.rounds);
        let empty = MapState::new(capacity);
        println!("{:>9.2}  plan, from nothing", self.time(|| plan(&desired, &empty).ops.len()));
        let ops = plan(&desired, &empty).ops;
        let started = Instant::now();
        ops.iter().for_each(|op| tables.apply(op));
        println!("{:>9.2}  follow its {} writes", started.elapsed().as_secs_f64() * 1000.0, ops.len());
        println!("{:>9.2}  plan, nothing to do", self.time(|| plan(&desired, &tables).ops.len()));
        let settled = desired.clone();
        if let Some((_, service)) = desired.services.values_mut().nth(usize::from(self.services / 2)) {
            Arc::make_mut(service).backends.pop();
        }
        println!("{:>9.2}  plan, one task ended", self.time(|| plan(&desired, &tables).ops.len()));
        let changes = || plan_changes(&desired, &tables, &settled).ops.len();
        println!("{:>9.2}  the same, where the maps are known to say the others", self.time(changes));
        Ok(())
    }

    fn time(&self, mut work: impl FnMut() -> usize) -> f64 {
        let mut round = || {
            let started = Instant::now();
            std::hint::black_box(work());
            started.elapsed().as_secs_f64() * 1000.0
        };
        median(&(0..self.rounds).map(|_| round()).collect::<Vec<_>>())
    }

    fn desired(&self) -> Desired {
        let backend = |service: u16, k: u8| Backend {
            task: format!("bench_{service}.instance-{k:08}-0000-11ea-8000-01a2045c894f._app.1"),
            address: IpAddr::from([10, k, (service >> 8) as u8, service as u8]),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let service = |n: u16| Service {
            name: format!("/bench/{n}"),
            owner: None,
            settings: Settings::default(),
            backends: (0..self.backends).map(|k| backend(n, k)).collect(),
        };
        let services: BTreeMap<_, _> = (0..self.services)
            .map(|n| (ServiceKey::host(10_000 + n, Protocol::Tcp), (SourceCode::MARATHON, Arc::new(service(n)))))
            .collect();
        Desired { addresses: BTreeSet::new(), services, ..Desired::default() }
    }
}
