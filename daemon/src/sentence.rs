//! An error as one sentence, for a person. Called wherever one is shown; it knows nothing of what failed.
//!
//! The parts below name their causes in their own words, and are chains as well.

/// What could not be done, then why; a cause that the text before it already says is not repeated.
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            said if said.contains(&cause) => text,
            said => format!("{said}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("read-only").context("setting x: read-only").context("cannot forward");
        assert_eq!(sentence(&error), "cannot forward: setting x: read-only");
    }
}
