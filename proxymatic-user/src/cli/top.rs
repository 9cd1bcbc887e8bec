//! `proxymatic top`: the live screen. This file has the terminal and the clock; `surface` has the content.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins},
    plan::MapState,
    surface::{Board, Order, draw, samples},
};

/// How often the counters are read.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How often the services themselves are read, which takes longer.
const SERVICES_INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait for a key before the screen is drawn again.
const KEY_TIMEOUT: Duration = Duration::from_millis(100);
/// The number of lines of a page.
const PAGE: isize = 10;

pub(super) fn run(args: &PinArgs) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "top needs a terminal as standard input and output; programs should use `proxymatic -j service show`"
    );
    let pins = Pins::at(&args.bpffs);
    let mut maps = Maps::open(&pins)?;
    let stop = stop_on_signal()?;
    // Also restores the terminal after a panic.
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let done = run_screen(&mut terminal, &pins, &mut maps, &stop);
    ratatui::try_restore().context("cannot restore the terminal; run `reset`")?;
    done.map(|()| Outcome::Ok)
}

fn run_screen(terminal: &mut DefaultTerminal, pins: &Pins, maps: &mut Maps, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut board = Board::default();
    let mut tables = maps.tables()?;
    let (mut read, mut services_read): (Option<Instant>, _) = (None, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if read.is_none_or(|at| now - at >= READ_INTERVAL) {
            if now - services_read >= SERVICES_INTERVAL {
                services_read = now;
                read_services(&mut board, pins, maps, &mut tables);
            }
            board.take(samples(maps, &tables), read.map_or(READ_INTERVAL, |at| now - at));
            read = Some(now);
        }
        terminal.draw(|frame| draw(frame, &board)).context("cannot draw")?;
        if event::poll(KEY_TIMEOUT).context("cannot wait for keys")?
            && let Event::Key(key) = event::read().context("cannot read keys")?
            && key.kind != KeyEventKind::Release
            && !press(&mut board, key)
        {
            break;
        }
    }
    Ok(())
}

/// Reads the services. The maps may have been replaced or removed meanwhile.
fn read_services(board: &mut Board, pins: &Pins, maps: &mut Maps, tables: &mut MapState) {
    match Maps::open(pins).and_then(|now| Ok((now.tables()?, now))) {
        Ok((now, opened)) => {
            (*tables, *maps) = (now, opened);
            board.trouble = None;
        }
        Err(error) => board.trouble = Some(error.to_string()),
    }
}

/// Handles a key. Returns false if the key ends the program.
fn press(board: &mut Board, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Up | KeyCode::Char('k') => board.go(-1),
        KeyCode::Down | KeyCode::Char('j') => board.go(1),
        KeyCode::PageUp => board.go(-PAGE),
        KeyCode::PageDown => board.go(PAGE),
        KeyCode::Home => board.go(isize::MIN),
        KeyCode::End => board.go(isize::MAX),
        KeyCode::Char(key) => {
            if let Some(order) = Order::from_key(key) {
                board.sort(order);
            }
        }
        _ => {}
    }
    true
}

/// Returns a flag that a signal to stop sets. The thread that waits for signals ends with the process.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let mut signals = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).context("cannot wait for signals");
        [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?]
    };
    let wait = move || {
        runtime.block_on(async {
            let [term, int, hangup] = &mut signals;
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets_the_order_moves_or_quits() {
        let mut board = Board::default();
        assert!(press(&mut board, KeyCode::Char('a').into()));
        assert_eq!(board.order, Order::Active);
        assert!(press(&mut board, KeyCode::Char('x').into()), "an unknown key is ignored");
        assert!(press(&mut board, KeyCode::Down.into()));
        assert!(press(&mut board, KeyCode::Char('c').into()));
        let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for key in [KeyCode::Char('q').into(), KeyCode::Esc.into(), stop] {
            assert!(!press(&mut board, key));
        }
    }
}
