//! The board on a terminal: a table of services, and the history of the selected one.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line as Text, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState},
};

use super::model::{Board, HISTORY, Key, Line, Order};
use crate::surface::table::{count, rtt, shorten};

/// The height of the histories, in lines.
const BELOW: u16 = 5;
/// The width of the trend in each row, in characters.
const TREND: usize = 12;

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, board: &Board) {
    let rows = board.sorted();
    let heights = [
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(BELOW),
        Constraint::Length(1),
    ];
    let [head, table, name, histories, keys] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(summary(board, &rows), head);
    draw_table(frame, table, board, &rows);
    if let Some((key, line)) = rows.get(board.selected) {
        let (service, port) = key;
        let text = shorten(&format!("{service} {port}"), usize::from(name.width).max(8));
        frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD)), name);
        draw_histories(frame, histories, line);
    }
    frame.render_widget(Paragraph::new(help(board)), keys);
}

fn summary(board: &Board, rows: &[(&Key, &Line)]) -> Paragraph<'static> {
    if let Some(trouble) = &board.trouble {
        return Paragraph::new(trouble.clone()).style(Style::new().add_modifier(Modifier::REVERSED));
    }
    let rate: f64 = rows.iter().map(|(_, line)| line.rate).sum();
    let sum = |of: fn(&Line) -> u64| rows.iter().map(|(_, line)| of(line)).sum::<u64>();
    let bare = rows.iter().filter(|(_, line)| line.last.up == 0).count();
    let mut text = format!(
        "proxymatic top: {} services, {} connections open, {} new/s, {} failed",
        rows.len(),
        count(sum(|line| line.last.active)),
        count(rate.round() as u64),
        count(sum(|line| line.last.failed)),
    );
    if bare > 0 {
        text += &format!(", {bare} without an active backend");
    }
    Paragraph::new(text)
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, board: &Board, rows: &[(&Key, &Line)]) {
    let header = ["SERVICE", "PORT", "UP", "RATE/S", "ACTIVE", "FAILED", "RTT", "TREND"];
    let widths = [12, 6, 7, 7, 7, 7, TREND as u16];
    let name = area.width.saturating_sub(widths.iter().map(|width| width + 1).sum()).max(12);
    let right = |text: String| Cell::new(Text::from(text).right_aligned());
    let cells = rows.iter().map(|((service, port), line)| {
        let last = &line.last;
        let row = Row::new([
            Cell::new(shorten(service, name.into())),
            Cell::new(port.clone()),
            right(format!("{}/{}", last.up, last.backends)),
            right(count(line.rate.round() as u64)),
            right(count(last.active)),
            right(count(last.failed)),
            right(if last.rtt_us == 0 { "-".into() } else { rtt(last.rtt_us) }),
            Cell::new(trend(&line.rates)),
        ]);
        if last.up == 0 || line.failing > 0.0 { row.style(Style::new().add_modifier(Modifier::BOLD)) } else { row }
    });
    let heads = header
        .iter()
        .enumerate()
        .map(|(i, text)| if (2..7).contains(&i) { right((*text).into()) } else { Cell::new(*text) });
    let widths = std::iter::once(name).chain(widths).map(Constraint::Length);
    let table = Table::new(cells, widths)
        .header(Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!rows.is_empty()).then_some(board.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Returns a history as one line of blocks, with the newest value at the right.
fn trend(history: &VecDeque<u64>) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = history.iter().skip(history.len().saturating_sub(TREND));
    let most = shown.clone().max().copied().unwrap_or(0).max(1);
    let blocks: String = shown.map(|value| BLOCKS[(value * 7 / most) as usize]).collect();
    format!("{blocks:>TREND$}")
}

fn draw_histories(frame: &mut Frame<'_>, area: Rect, line: &Line) {
    let areas: [Rect; 4] = Layout::horizontal([Constraint::Ratio(1, 4); 4]).areas(area);
    let titles = [
        format!("new/s {}", count(line.rate.round() as u64)),
        format!("active {}", count(line.last.active)),
        format!("failed/s {}", count(line.failing.ceil() as u64)),
        format!("RTT {}", if line.last.rtt_us == 0 { "-".into() } else { rtt(line.last.rtt_us) }),
    ];
    let histories = [&line.rates, &line.actives, &line.failures, &line.rtts];
    for ((area, title), history) in areas.into_iter().zip(titles).zip(histories) {
        let room = usize::from(area.width.saturating_sub(1)).min(HISTORY);
        let shown = history.iter().skip(history.len().saturating_sub(room)).copied();
        let block = Block::new().borders(Borders::TOP).title(shorten(&title, room.max(8)));
        frame.render_widget(Sparkline::default().block(block).data(shown.collect::<Vec<u64>>()), area);
    }
}

fn help(board: &Board) -> Text<'static> {
    let mut spans = vec![Span::raw("order: ")];
    for (key, order, name) in Order::ALL {
        let style = if order == board.order { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let arrow = match (order == board.order, board.reversed) {
            (true, false) => "↓",
            (true, true) => "↑",
            (false, _) => "",
        };
        spans.push(Span::styled(format!("{key} {name}{arrow}"), style));
        spans.push(Span::raw("  "));
    }
    spans.push(Span::raw("move: arrows  quit: q"));
    Text::from(spans)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::surface::top::Sample;

    fn board() -> Board {
        let mut board = Board::default();
        for n in 0..8_u64 {
            let key = |name: &str, port: &str| (name.to_owned(), port.to_owned());
            let web = Sample { active: 12, total: 100 * n * n, failed: 3, rtt_us: 740, up: 3, backends: 3 };
            let dns = Sample { active: 2, total: 1000 + 10 * n, failed: 0, rtt_us: 0, up: 1, backends: 2 };
            let idle = Sample { up: 0, ..Sample::default() };
            let samples: BTreeMap<_, _> = [
                (key("/shop/web", "1234/tcp"), web),
                (key("/infra/dns", "53/udp"), dns),
                (key("/idle", "80/tcp"), idle),
            ]
            .into();
            board.take(samples, Duration::from_secs(1));
        }
        board
    }

    fn drawn(board: &Board, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 14)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn screen_shows_services_and_the_selected_history() {
        expect_test::expect![[r#"
            proxymatic top: 3 services, 14 connections open, 1.3k new/s, 3 failed, 1 without an active backend
            SERVICE                             PORT             UP  RATE/S  ACTIVE  FAILED     RTT TREND
            /shop/web                           1234/tcp        3/3    1.3k      12       3   740us      ▁▂▃▄▅▆█
            /infra/dns                          53/udp          1/2      10       2       0       -      ███████
            /idle                               80/tcp          0/0       0       0       0       -      ▁▁▁▁▁▁▁


            /shop/web 1234/tcp
            new/s 1.3k───────────────active 12────────────────failed/s 0───────────────RTT 740us────────────────
                 ▃█                  ███████                                           ███████
               ▁▆██                  ███████                                           ███████
              ▄████                  ███████                                           ███████
            ▂▇█████                  ███████                                           ███████
            order: r rate↓  a active  f failed  t RTT  n name  move: arrows  quit: q
        "#]]
        .assert_eq(&drawn(&board(), 100));
    }

    #[test]
    fn small_terminal_and_empty_board_are_drawn() {
        assert!(drawn(&Board::default(), 30).starts_with("proxymatic top: 0 services"));
        assert!(drawn(&board(), 60).lines().count() == 14);
        let trouble = Board { trouble: Some("nothing is pinned".into()), ..board() };
        assert!(drawn(&trouble, 100).starts_with("nothing is pinned\n"));
    }
}
