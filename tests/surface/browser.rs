//! The page in a real browser.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

use crate::{checkout, serve, within};

const PAGE: &str = "http://127.0.0.1:9090/";
const DRIVER: &str = "http://127.0.0.1:9515";
/// A name that is dangerous if it is not escaped.
const HOSTILE: &str = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
/// A browser takes long to start.
const SLOW: Duration = Duration::from_secs(120);

/// Services with replicas on host 2: a, b, and one with a hostile name.
fn services(lab: &Lab) -> Value {
    let backend = |port: u16| json!({ "address": lab.host(2).address(), "port": port });
    json!([
        { "name": "/shop/web", "port": 1234, "backends": [backend(8001), backend(8002)] },
        { "name": HOSTILE, "port": 1235, "backends": [backend(8001)] },
        { "name": "/shop/idle", "port": 1236, "backends": [] },
    ])
}

fn driver(host: &Host) -> Result<Process> {
    let mut driver = host.spawn(Path::new("chromedriver"), &["--port=9515"])?;
    driver.said("started successfully", SLOW)?;
    Ok(driver)
}

/// Starts a browser of its own, with these options and those that all need.
async fn browser(folder: &Path, more: Value) -> Result<Client> {
    let profile = format!("--user-data-dir={}", folder.display());
    let quiet = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars";
    let arguments: Vec<&str> = quiet.split_whitespace().chain([profile.as_str()]).collect();
    let mut options = json!({ "args": arguments });
    for (key, value) in more.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    let capabilities = json!({ "goog:chromeOptions": options });
    let capabilities = capabilities.as_object().context("an object")?.clone();
    let client = ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(DRIVER).await?;
    client.set_window_size(1100, 760).await?;
    Ok(client)
}

/// Polls the page until a script returns the expected value.
async fn when(page: &Client, what: &str, script: &str, wanted: &Value) -> Result<()> {
    let mut last = None;
    let ask = async {
        loop {
            match page.execute(script, vec![]).await {
                Ok(value) if value == *wanted => return,
                // A script fails while the page loads itself again.
                other => last = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, ask).await;
    asked.with_context(|| format!("{what}: not within {PATIENCE:?}; last: {last:?}"))
}

const STATES: &str = "return [...document.querySelectorAll('td .state')].map(it => it.textContent)";

#[test]
fn page_shows_services_and_removes_a_gone_backend() -> TestResult {
    let lab = Lab::start(2)?;
    let _a = lab.replica(2, 8001, "a")?;
    let mut b = lab.replica(2, 8002, "b")?;
    let mut agent = serve(&lab, &services(&lab))?;
    let _driver = driver(lab.host(1))?;
    let folder = lab.run_dir().join("browser");
    let (lab, agent) = (&lab, &mut agent);
    let told = within(lab.host(1), async {
        let page = browser(&folder, json!({})).await?;
        page.goto(PAGE).await?;
        let names = "return [...document.querySelectorAll('.service th')].map(it => it.firstChild.textContent.trim())";
        when(&page, "the services", names, &json!(["/shop/web", HOSTILE, "/shop/idle"])).await?;
        when(&page, "their backends", STATES, &json!(["active", "active", "active", "no backend"])).await?;
        // The hostile name has no effect; the page's own style and script are allowed by its policy.
        when(&page, "the title", "return document.title", &json!("proxymatic")).await?;
        when(
            &page,
            "its style",
            "return getComputedStyle(document.querySelector('table')).borderCollapse",
            &json!("collapse"),
        )
        .await?;
        let others =
            "return performance.getEntriesByType('resource').filter(it => !it.name.startsWith(location.origin)).length";
        page.execute("window.untouched = true", vec![]).await?;
        b.process.kill9()?;
        let failed = lab.client(&["http", "--url", "http://localhost:1234/", "--count", "60"])?.failed;
        ensure!(failed > 0, "no connect to b failed");
        when(&page, "b is ejected", STATES, &json!(["active", "ejected", "active", "no backend"])).await?;
        when(&page, "without loading the page again", "return window.untouched", &json!(true)).await?;
        when(&page, "and without asking anybody else", others, &json!(0)).await?;
        page.goto(&format!("{PAGE}?q=/shop")).await?;
        when(&page, "only what was asked for", names, &json!(["/shop/web", "/shop/idle"])).await?;
        if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
            fs::write(checkout()?.join("docs/page.png"), page.screenshot().await?)?;
        }
        agent.kill9()?;
        when(&page, "that nobody answers any more", "return document.getElementById('offline').hidden", &json!(false))
            .await?;
        page.close().await?;
        Ok(())
    });
    Ok(told?)
}

#[test]
fn page_without_script_shows_a_table_that_fits_a_phone() -> TestResult {
    let lab = Lab::start(2)?;
    let _a = lab.replica(2, 8001, "a")?;
    let _b = lab.replica(2, 8002, "b")?;
    let _agent = serve(&lab, &services(&lab))?;
    let _driver = driver(lab.host(1))?;
    let folder = lab.run_dir().join("browser");
    let shown = within(lab.host(1), async {
        let phone = json!({
            "mobileEmulation": { "deviceMetrics": { "width": 390, "height": 844, "pixelRatio": 1.0, "mobile": true } },
            "prefs": { "profile.managed_default_content_settings.javascript": 2 },
        });
        let page = browser(&folder, phone).await?;
        page.goto(PAGE).await?;
        when(&page, "the backends", STATES, &json!(["active", "active", "active", "no backend"])).await?;
        when(&page, "no wider than the phone", "return document.documentElement.scrollWidth <= 390", &json!(true))
            .await?;
        let roles = "return [...new Set([...document.querySelectorAll('tbody *[role]')].map(it => it.role))].sort()";
        when(&page, "a table, although its rows are blocks", roles, &json!(["cell", "row", "rowheader"])).await?;
        // The page has reloaded itself: changes to the old document are gone.
        when(&page, "a change", "return document.body.dataset.old = 'yes'", &json!("yes")).await?;
        when(&page, "loaded again", "return document.body.dataset.old ?? null", &Value::Null).await?;
        page.close().await?;
        Ok(())
    });
    Ok(shown?)
}
