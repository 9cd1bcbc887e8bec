//! README.md and docs/ show what the program prints. See CONTRIBUTING.md, "Documents", for their markup.

mod page;
mod stage;

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;

use self::page::{Block, Page, Step, same};
use self::stage::Stage;

/// Rewrites the outputs that differ instead of failing.
const UPDATE: &str = "UPDATE_EXPECT";

fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// README.md and all of docs/, in order.
fn pages() -> Result<Vec<Page>> {
    let mut files = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        files.extend((path.extension().is_some_and(|it| it == "md")).then_some(path));
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<Page> {
    let text = fs::read_to_string(file)?;
    Page::parse(&text)
        .with_context(|| format!("in {}", file.display()))
        .map(|page| Page { file: file.to_owned(), ..page })
}

#[test]
fn every_document_block_has_a_kind_or_a_reason_not_to_run() -> TestResult {
    let pages = pages()?;
    let blocks = || pages.iter().flat_map(|page| &page.steps).filter_map(Step::block);
    let run = blocks().filter(|block| block.not_run.is_none()).count();
    println!("{run} blocks of commands are run, {} are not", blocks().count() - run);
    // A smaller number means that blocks are no longer marked.
    assert!(run >= 15, "only {run} blocks of the documents are run");
    Ok(())
}

#[test]
fn documented_output_matches_printed_output() -> TestResult {
    let mut wrong = Vec::new();
    for page in pages()? {
        wrong.extend(perform(&page).with_context(|| format!("in {}", page.file.display()))?);
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE_EXPECT=1 rewrites what differs)", wrong.join("\n"));
    Ok(())
}

/// Executes a page from top to bottom, and returns a sentence for each output that differs.
fn perform(page: &Page) -> Result<Vec<String>> {
    let runs = |step: &Step| step.block().is_some_and(|block| block.not_run.is_none());
    let needs = |step: &Step| matches!(step, Step::Lab(_)) || runs(step);
    if !page.steps.iter().any(needs) {
        return Ok(Vec::new());
    }
    let lab = stage::lab()?;
    let mut stage = Stage::set(&lab)?;
    let (mut wrong, mut changed) = (Vec::new(), Rewritten { text: page.text.clone(), at: 0 });
    for step in &page.steps {
        match step {
            Step::Lab(event) => stage.event(event).with_context(|| format!("lab: {event}"))?,
            Step::App(app) => stage.deploy(app)?,
            Step::Block(block) if block.not_run.is_some() => {}
            Step::Block(block) => wrong.extend(check(page, block, &stage, &mut changed)?),
        }
    }
    if env::var_os(UPDATE).is_some_and(|it| !it.is_empty()) && changed.text != page.text {
        fs::write(&page.file, changed.text)?;
        return Ok(Vec::new());
    }
    Ok(wrong)
}

/// Replaces outputs in a page. A command may occur twice in it; the ones before `at` are done.
struct Rewritten {
    text: String,
    at: usize,
}

impl Rewritten {
    fn put(&mut self, command: &str, shown: &str, printed: &str) {
        let (old, new) = (format!("$ {command}\n{shown}"), format!("$ {command}\n{printed}"));
        if let Some(place) = self.text[self.at..].find(&old).map(|it| self.at + it) {
            self.text.replace_range(place..place + old.len(), &new);
            self.at = place + new.len();
        }
    }
}

fn check(page: &Page, block: &Block, stage: &Stage<'_>, changed: &mut Rewritten) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (command, shown) in &block.commands {
        let printed = stage.run(command, |printed| same(shown, printed))?;
        let well = same(shown, &printed);
        changed.put(command, shown, if well { shown } else { &printed });
        if !well {
            let name = page.file.file_name().unwrap_or_default().display();
            wrong.push(format!("{name}: $ {command}\n--- it shows\n{shown}--- it printed\n{printed}---"));
        }
    }
    Ok(wrong)
}
