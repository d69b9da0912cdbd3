//! Reads the text that cargo and libtest print, line by line, into totals. Pure: lines in, counts out.
//!
//! A test that passed but printed a line starting with `SKIP:` counts as skipped. `--show-output` makes
//! libtest print what passing tests said; that part is read and not shown again.

use std::collections::BTreeSet;

/// The results so far.
#[derive(Default)]
pub(crate) struct Reader {
    /// Names of tests that failed, with the program they are in.
    pub(crate) failures: Vec<String>,
    /// Names of tests that were ignored or skipped themselves, with the reason.
    pub(crate) skips: Vec<String>,
    program: String,
    /// Every test with a result: one that runs itself again in another process prints its line twice.
    seen: BTreeSet<String>,
    ok: usize,
    skipped_ok: BTreeSet<String>,
    /// Programs that began and have not printed their result.
    open: Option<String>,
    section: Section,
    /// The test whose output is being read.
    speaker: Option<String>,
}

#[derive(Default, PartialEq)]
enum Section {
    #[default]
    Results,
    Successes,
    Failures,
}

impl Reader {
    /// Takes one line in; says whether a person should see it.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let line = line.trim_end();
        if let Some(program) = program_started(line) {
            self.close_open_program();
            self.program.clone_from(&program);
            self.open = Some(program);
            self.section = Section::Results;
            return true;
        }
        if line.starts_with("test result: ") {
            self.open = None;
            self.section = Section::Results;
            return true;
        }
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        match self.section {
            Section::Results => self.read_result(line),
            Section::Successes => {
                self.read_output(line);
                false
            }
            Section::Failures => true,
        }
    }

    /// The tests that ran and passed and did not skip themselves.
    pub(crate) fn passed(&self) -> usize {
        self.ok - self.skipped_ok.len()
    }

    /// After the last line: what ended without a result, and a failure that no test explains.
    pub(crate) fn finish(&mut self, success: bool) {
        self.close_open_program();
        if !success && self.failures.is_empty() {
            self.failures.push("cargo test itself (its message is above)".to_owned());
        }
    }

    fn read_result(&mut self, line: &str) -> bool {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        else {
            return !line.is_empty() && !line.starts_with("running ");
        };
        let full = format!("{} ({})", name.trim_end_matches(" - should panic"), self.program);
        if !self.seen.insert(full.clone()) {
            return false;
        }
        match result.split([',', ' ']).next().unwrap_or_default() {
            "ok" => self.ok += 1,
            "ignored" => self.skips.push(format!("{full}: {result}")),
            _ => self.failures.push(full),
        }
        true
    }

    fn read_output(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.speaker = Some(name.to_owned());
        }
        let Some(reason) = line.strip_prefix("SKIP:") else { return };
        if let Some(name) = &self.speaker {
            let full = format!("{name} ({})", self.program);
            if self.skipped_ok.insert(full.clone()) {
                self.skips.push(format!("{full}:{reason}"));
            }
        }
    }

    fn close_open_program(&mut self) {
        if let Some(program) = self.open.take() {
            self.failures.push(format!("{program} ended without a result"));
        }
    }
}

/// The name of the program in cargo's line `Running unittests src/lib.rs (target/debug/deps/model-0123)`.
fn program_started(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(library) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documentation of {library}"));
    }
    let rest = line.strip_prefix("Running ")?;
    let (source, path) = rest.strip_suffix(')')?.rsplit_once(" (")?;
    let file = path.rsplit('/').next()?;
    let (package, _hash) = file.rsplit_once('-').unwrap_or((file, ""));
    Some(format!("{package}: {}", source.trim_start_matches("unittests ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> (Reader, Vec<String>) {
        let mut reader = Reader::default();
        let shown = text.lines().filter(|line| reader.read(line)).map(str::to_owned).collect();
        reader.finish(success);
        (reader, shown)
    }

    const PASSING: &str = "\
     Running unittests src/lib.rs (/t/debug/deps/model-1a2b)

running 3 tests
test a ... ok
test b ... ok
test c ... ignored, needs a year

successes:

---- b stdout ----
SKIP: not root
chatter

successes:
    a
    b

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests model

running 1 test
test src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn totals_of_several_programs_add_up_and_a_printed_skip_counts_as_skipped() {
        let (reader, shown) = read(PASSING, true);
        assert_eq!((reader.passed(), reader.failures.len(), reader.skips.len()), (2, 0, 2));
        assert_eq!(reader.skips[1], "b (model: src/lib.rs): not root");
        assert!(!shown.iter().any(|line| line.contains("chatter")), "{shown:?}");
    }

    #[test]
    fn a_failure_is_named_and_its_output_shown() {
        let text = "\
     Running tests/scenarios.rs (/t/debug/deps/scenarios-77)
test scenario_01_x ... FAILED

failures:

---- scenario_01_x stdout ----
thread panicked: the reason
failures:
    scenario_01_x

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let (reader, shown) = read(text, false);
        assert_eq!(reader.failures, ["scenario_01_x (scenarios: tests/scenarios.rs)"]);
        assert!(shown.iter().any(|line| line.contains("the reason")));
    }

    #[test]
    fn a_test_that_runs_itself_in_another_process_counts_once() {
        let inner = "test scenario_33_x ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n";
        let (reader, _) =
            read(&format!("     Running tests/a.rs (/t/deps/a-1)\ntest b ... ok\n{inner}{inner}"), false);
        assert_eq!((reader.passed(), reader.failures.len()), (1, 1));
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let text = "     Running tests/crash.rs (/t/debug/deps/crash-77)\nrunning 1 test\n";
        let (reader, _) = read(text, false);
        assert_eq!(reader.failures, ["crash: tests/crash.rs ended without a result"]);
    }

    #[test]
    fn a_failure_of_cargo_that_no_test_explains_is_a_failure() {
        let (reader, _) = read("error: could not compile\n", false);
        assert_eq!(reader.failures.len(), 1);
    }
}
