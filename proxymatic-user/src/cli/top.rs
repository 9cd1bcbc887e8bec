//! `proxymatic top`: the live screen. Here are the terminal and the clock; what is shown is in `surface`.

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

use super::{Health, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins},
    plan::MapState,
    surface::{Board, Order, draw, samples},
};

/// How often the counts are read.
const READ: Duration = Duration::from_secs(1);
/// How often it is looked which services there are, which takes longer.
const LOOK: Duration = Duration::from_secs(2);
/// How long a key may wait.
const KEYS: Duration = Duration::from_millis(100);
/// How far a page is.
const PAGE: isize = 10;

pub(super) fn run(args: &PinArgs) -> anyhow::Result<Health> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "top needs a terminal, and standard input or output is none; `proxymatic -j service show` is for programs"
    );
    let pins = Pins::at(&args.bpffs);
    let mut maps = Maps::open(&pins)?;
    let stop = stop_on_signal()?;
    // Also puts the terminal back where this panics.
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let done = follow(&mut terminal, &pins, &mut maps, &stop);
    ratatui::try_restore().context("cannot give the terminal back; `reset` does")?;
    done.map(|()| Health::Well)
}

fn follow(terminal: &mut DefaultTerminal, pins: &Pins, maps: &mut Maps, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut board = Board::default();
    let mut tables = maps.tables()?;
    let (mut read, mut looked): (Option<Instant>, _) = (None, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if read.is_none_or(|at| now - at >= READ) {
            if now - looked >= LOOK {
                looked = now;
                look(&mut board, pins, maps, &mut tables);
            }
            board.take(samples(maps, &tables), read.map_or(READ, |at| now - at));
            read = Some(now);
        }
        terminal.draw(|frame| draw(frame, &board)).context("cannot draw")?;
        if event::poll(KEYS).context("cannot wait for keys")?
            && let Event::Key(key) = event::read().context("cannot read keys")?
            && key.kind != KeyEventKind::Release
            && !press(&mut board, key)
        {
            break;
        }
    }
    Ok(())
}

/// Which services there are now. The maps may have been made anew meanwhile, or taken away.
fn look(board: &mut Board, pins: &Pins, maps: &mut Maps, tables: &mut MapState) {
    match Maps::open(pins).and_then(|now| Ok((now.tables()?, now))) {
        Ok((now, opened)) => {
            (*tables, *maps) = (now, opened);
            board.trouble = None;
        }
        Err(error) => board.trouble = Some(error.to_string()),
    }
}

/// False where the key says that it is enough.
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
            if let Some(order) = Order::of_key(key) {
                board.sort(order);
            }
        }
        _ => {}
    }
    true
}

/// Set when this process is asked to end. The thread that waits for it ends with the process.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let mut signals = {
        let _entered = runtime.enter();
        let heard = |kind| signal(kind).context("cannot wait for signals");
        [heard(SignalKind::terminate())?, heard(SignalKind::interrupt())?, heard(SignalKind::hangup())?]
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
        told.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_move_and_end() {
        let mut board = Board::default();
        assert!(press(&mut board, KeyCode::Char('a').into()));
        assert_eq!(board.order, Order::Active);
        assert!(press(&mut board, KeyCode::Char('x').into()), "a key that means nothing");
        assert!(press(&mut board, KeyCode::Down.into()));
        assert!(press(&mut board, KeyCode::Char('c').into()));
        let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for key in [KeyCode::Char('q').into(), KeyCode::Esc.into(), stop] {
            assert!(!press(&mut board, key));
        }
    }
}
