//! Samples of all services over time, and what is computed from them: rates, orders, histories. Pure except
//! [`samples`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use proxymatic_common::{BackendState, Class, PROTOCOL_TCP};

use crate::{dataplane::kernel::Maps, plan::MapState};

/// The number of samples kept for each service.
pub(super) const HISTORY: usize = 60;

/// The counters of a service at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Open connections.
    pub active: u64,
    /// Connections opened so far.
    pub total: u64,
    /// Connections failed or refused so far.
    pub failed: u64,
    /// The mean round trip time of the backends that were measured, in microseconds; 0 for none.
    pub rtt_us: u64,
    /// Backends that take new connections.
    pub up: usize,
    /// All backends.
    pub backends: usize,
}

/// A service, by its name and its port.
pub(super) type Key = (String, String);

/// Reads the counters of each service from the maps.
pub fn samples(maps: &Maps, tables: &MapState) -> BTreeMap<Key, Sample> {
    let mut found = BTreeMap::new();
    for (frontend, id) in tables.frontends() {
        let Some(entry) = tables.services().get(id) else { continue };
        let protocol = if frontend.protocol == PROTOCOL_TCP { "tcp" } else { "udp" };
        let class = if frontend.class == Class::HOST { String::new() } else { format!(" #{}", frontend.class.0) };
        let mut sample = Sample::default();
        let (mut rtt, mut measured) = (0, 0);
        for id in &entry.backends {
            let (Some(backend), Some(load)) = (tables.backends().get(id), maps.load(*id)) else { continue };
            sample.active += load.active();
            sample.total += load.opened.get();
            sample.failed += load.failed.get();
            if backend.backend.state == BackendState::GONE {
                continue;
            }
            sample.backends += 1;
            sample.up += usize::from(backend.backend.state == BackendState::ACTIVE && !maps.ejected(*id));
            if load.rtt_us.get() > 0 {
                rtt += load.rtt_us.get();
                measured += 1;
            }
        }
        if let Some(load) = maps.service_load(*id) {
            sample.failed += load.refused.iter().map(proxymatic_common::Cell64::get).sum::<u64>();
        }
        sample.rtt_us = rtt.checked_div(measured).unwrap_or(0);
        found.insert((entry.name.clone(), format!("{}/{protocol}{class}", frontend.port.get())), sample);
    }
    found
}

/// The order of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// New connections a second.
    #[default]
    Rate,
    /// Open connections.
    Active,
    /// Failures a second, then failures so far.
    Failed,
    /// Round trip time.
    Rtt,
    /// Name.
    Name,
}

impl Order {
    /// All orders, each with its key.
    pub(super) const ALL: [(char, Self, &str); 5] = [
        ('r', Self::Rate, "rate"),
        ('a', Self::Active, "active"),
        ('f', Self::Failed, "failed"),
        ('t', Self::Rtt, "RTT"),
        ('n', Self::Name, "name"),
    ];

    /// Returns the order for a key.
    pub fn from_key(key: char) -> Option<Self> {
        Self::ALL.into_iter().find(|(it, ..)| *it == key).map(|(_, order, _)| order)
    }
}

/// A service on the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) last: Sample,
    pub(super) rate: f64,
    pub(super) failing: f64,
    pub(super) rates: VecDeque<u64>,
    pub(super) actives: VecDeque<u64>,
    pub(super) failures: VecDeque<u64>,
    pub(super) rtts: VecDeque<u64>,
}

impl Line {
    fn take(&mut self, sample: Sample, seconds: f64) {
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
        self.rate = per_second(sample.total, self.last.total);
        self.failing = per_second(sample.failed, self.last.failed);
        self.last = sample;
        let news = [self.rate.round() as u64, sample.active, self.failing.ceil() as u64, sample.rtt_us];
        let histories = [&mut self.rates, &mut self.actives, &mut self.failures, &mut self.rtts];
        for (history, new) in histories.into_iter().zip(news) {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(new);
        }
    }
}

/// The content of the screen.
#[derive(Clone, Debug, Default)]
pub struct Board {
    pub(super) lines: BTreeMap<Key, Line>,
    /// The order of the services.
    pub order: Order,
    /// Whether the order is reversed.
    pub reversed: bool,
    /// The index of the selected line.
    pub selected: usize,
    /// The problem to show, in one line.
    pub trouble: Option<String>,
}

impl Board {
    /// Takes new samples, `since` after the samples before. Services without a sample are gone.
    pub fn take(&mut self, samples: BTreeMap<Key, Sample>, since: Duration) {
        self.lines.retain(|key, _| samples.contains_key(key));
        for (key, sample) in samples {
            match self.lines.get_mut(&key) {
                Some(line) => line.take(sample, since.as_secs_f64()),
                // The first sample gives no rate, because its counters began earlier.
                None => drop(self.lines.insert(key, Line { last: sample, ..Line::default() })),
            }
        }
        self.selected = self.selected.min(self.lines.len().saturating_sub(1));
    }

    /// Sets the order. The same order again is reversed.
    pub fn sort(&mut self, order: Order) {
        self.reversed = order == self.order && !self.reversed;
        self.order = order;
    }

    /// Moves the selection down by `by` lines.
    pub fn go(&mut self, by: isize) {
        self.selected = self.selected.saturating_add_signed(by).min(self.lines.len().saturating_sub(1));
    }

    /// Returns the services in order.
    pub(super) fn sorted(&self) -> Vec<(&Key, &Line)> {
        let mut lines: Vec<_> = self.lines.iter().collect();
        match self.order {
            Order::Rate => lines.sort_by(|a, b| b.1.rate.total_cmp(&a.1.rate)),
            Order::Active => lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.last.active)),
            Order::Failed => {
                lines.sort_by(|a, b| b.1.failing.total_cmp(&a.1.failing).then(b.1.last.failed.cmp(&a.1.last.failed)))
            }
            Order::Rtt => lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.last.rtt_us)),
            Order::Name => {}
        }
        if self.reversed {
            lines.reverse();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total: u64, active: u64, failed: u64) -> Sample {
        Sample { active, total, failed, rtt_us: 100 * active, up: 2, backends: 2 }
    }

    fn key(name: &str) -> Key {
        (name.into(), "80/tcp".into())
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.take([(key("/a"), sample(100, 1, 0)), (key("/b"), sample(0, 5, 9))].into(), Duration::from_secs(1));
        board.take([(key("/a"), sample(120, 1, 0)), (key("/b"), sample(10, 5, 13))].into(), Duration::from_secs(2));
        board
    }

    fn names(board: &Board) -> Vec<&str> {
        board.sorted().into_iter().map(|((name, _), _)| name.as_str()).collect()
    }

    #[test]
    fn rate_is_the_difference_over_time_after_the_first_sample() {
        let board = board();
        let line = &board.lines[&key("/a")];
        assert_eq!((line.rate, line.failing), (10.0, 0.0));
        assert_eq!(line.rates, [10]);
        assert_eq!(board.lines[&key("/b")].failing, 2.0);
    }

    #[test]
    fn key_sets_the_order_and_the_same_key_reverses_it() {
        let mut board = board();
        assert_eq!(names(&board), ["/a", "/b"]);
        board.sort(Order::Rate);
        assert_eq!(names(&board), ["/b", "/a"]);
        for (wanted, first) in [('a', "/b"), ('f', "/b"), ('t', "/b"), ('n', "/a"), ('r', "/a")] {
            board.sort(Order::from_key(wanted).unwrap());
            assert_eq!(names(&board)[0], first, "{wanted}");
        }
        assert_eq!(Order::from_key('x'), None);
    }

    #[test]
    fn selection_stays_within_the_lines() {
        let mut board = board();
        board.go(5);
        assert_eq!(board.selected, 1);
        board.go(-9);
        assert_eq!(board.selected, 0);
        board.go(1);
        board.take([(key("/a"), sample(120, 1, 0))].into(), Duration::from_secs(1));
        assert_eq!((board.selected, names(&board)), (0, vec!["/a"]));
    }

    #[test]
    fn history_has_a_maximum_length() {
        let mut board = Board::default();
        for n in 0..200 {
            board.take([(key("/a"), sample(n, 1, 0))].into(), Duration::from_secs(1));
        }
        assert_eq!(board.lines[&key("/a")].rates.len(), HISTORY);
    }
}
