//! Names that say nothing: a module is called after what it is, not after being handy.
//! Looks at paths alone.

use std::path::Path;

use super::Finding;

const EMPTY_WORDS: &[&str] = &["manager", "managers", "helper", "helpers", "util", "utils", "common", "misc"];

/// Checks the name of a file and of the folders it is in.
pub(super) fn check(path: &Path) -> Vec<Finding> {
    path.iter()
        .filter_map(|part| {
            let part = part.to_string_lossy();
            let stem = part.strip_suffix(".rs").unwrap_or(&part).to_owned();
            let empty = stem.split(['_', '-']).any(|word| EMPTY_WORDS.contains(&word));
            empty.then(|| Finding::new(path, 1, format!("`{stem}` does not say what is in it")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_words_are_found_in_files_and_folders() {
        for path in ["a/src/util.rs", "a/src/utils/x.rs", "a/src/map_manager.rs", "common/src/lib.rs"] {
            assert_eq!(check(Path::new(path)).len(), 1, "{path}");
        }
        for path in ["a/src/utility_bill.rs", "a/src/helpful.rs", "dns/src/zone.rs"] {
            assert_eq!(check(Path::new(path)), [], "{path}");
        }
    }
}
