//! The page of the status endpoint: one document that loads nothing else. Every value is escaped.
//!
//! Without script the browser reloads the page; with script the table is replaced in place. Both use this document.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use super::{Overview, ServiceRow};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The largest number of services on the page.
const MOST: usize = 200;
/// The largest number of backends for one service.
const MOST_BACKENDS: usize = 50;

/// Returns the content security policy: this style, this script, and connections to this server only.
pub(super) fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// Returns the page with the services whose name contains `query` or whose port equals it; with an empty query all.
pub(super) fn html(overview: &Overview, query: &str) -> Markup {
    let query = query.trim();
    let found = || overview.services.iter().filter(|row| matches(row, query));
    let (all, shown) = (overview.services.len(), found().count());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "proxymatic" }
                style { (PreEscaped(STYLE)) }
                noscript { meta http-equiv="refresh" content="5"; }
            }
            body {
                header {
                    h1 { "proxymatic" }
                    form role="search" {
                        label for="q" { "Name or port" }
                        input id="q" name="q" type="search" value=(query) autocomplete="off";
                        button { "Show" }
                    }
                }
                p #offline role="alert" hidden { "No answer: these are the last values." }
                main {
                    (summary(overview))
                    @if shown == 0 {
                        p { @if all == 0 { "There are no services." } @else { "None of the " (all) " services matches." } }
                    } @else {
                        (table(found().take(MOST)))
                    }
                    @if shown > MOST {
                        p { (MOST) " of " (shown) " services; enter a name above to find others." }
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn matches(row: &ServiceRow, query: &str) -> bool {
    row.name.contains(query) || row.port.to_string() == query
}

fn summary(overview: &Overview) -> Markup {
    let status = &overview.status;
    let state = status.agent.as_ref().map_or("none", |agent| agent.state.as_str());
    let sources = status.agent.iter().flat_map(|agent| &agent.sources);
    let answered = sources.map(|it| match it.answered_s {
        Some(age) => format!("; {} answered {age:.0} s ago", it.source),
        None => format!("; {} has not answered yet", it.source),
    });
    let backends = status.backends.iter().map(|(state, count)| format!("{count} {state}"));
    let backends = backends.collect::<Vec<_>>().join(", ");
    html! {
        p.overview {
            // The agent's own state; problems of services are listed below.
            "Agent " strong class={ "state " (state) } { (state) }
            "; " (status.services) " services"
            @if !backends.is_empty() { "; backends: " (backends) }
            @for answered in answered { (answered) }
        }
        @if !status.problems.is_empty() {
            section.problems aria-labelledby="problems" {
                h2 #problems { "Problems" }
                ul { @for line in status.problems.iter().take(20) { li { (line) } } }
                @if status.problems.len() > 20 { p { (status.problems.len() - 20) " more: proxymatic status" } }
            }
        }
        @if !status.warnings.is_empty() {
            section.warnings aria-labelledby="warnings" {
                h2 #warnings { "Warnings" }
                ul { @for it in status.warnings.iter().take(20) { li { (it.app) ": " (it.reason) } } }
                @if status.warnings.len() > 20 { p { (status.warnings.len() - 20) " more: proxymatic status" } }
            }
        }
    }
}

/// These elements have the roles anyway, but some browsers drop them when a narrow screen turns the elements into
/// blocks.
fn table<'a>(rows: impl Iterator<Item = &'a ServiceRow>) -> Markup {
    html! {
        table role="table" {
            caption { "Services and their backends, as this host sees them" }
            thead role="rowgroup" {
                tr role="row" {
                    @for name in ["Backend", "State", "Open", "Total", "Failed", "Task"] {
                        th role="columnheader" scope="col" { (name) }
                    }
                }
            }
            @for row in rows {
                tbody role="rowgroup" {
                    tr.service role="row" {
                        th role="rowheader" scope="rowgroup" colspan="6" {
                            (row.name) " "
                            span.port {
                                @if let Some(address) = row.address { (address) " " }
                                (row.port) "/" (row.protocol)
                            }
                            " " span.by { (row.policy) ", from " (row.source) }
                        }
                    }
                    @if row.backends.is_empty() {
                        tr role="row" { td role="cell" colspan="6" { span.state.none { "no backend" } } }
                    }
                    @for backend in row.backends.iter().take(MOST_BACKENDS) {
                        tr role="row" {
                            td role="cell" { (std::net::SocketAddr::new(backend.address, backend.port)) }
                            td role="cell" { span class={ "state " (backend.state) } { (backend.state) } }
                            td.number role="cell" data-is="open" { (backend.active) }
                            td.number role="cell" data-is="total" { (backend.total) }
                            td.number role="cell" data-is="failed" { (backend.failed) }
                            td.task role="cell" { (backend.task) }
                        }
                    }
                    @if row.backends.len() > MOST_BACKENDS {
                        tr role="row" {
                            td role="cell" colspan="6" { (row.backends.len() - MOST_BACKENDS) " more backends" }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
