//! Errors for people: one chain of causes, each said once.

/// The chain of causes from the outermost to the innermost, one a line. A cause whose text its
/// predecessor already holds is left out.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !lines
            .last()
            .is_some_and(|previous| previous.contains(&text))
        {
            lines.push(text);
        }
    }
    let mut report = format!("error: {}", lines[0]);
    for cause in &lines[1..] {
        report.push_str("\n  because: ");
        report.push_str(cause);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow!("no space left")
            .context("job.sslj: no space left")
            .context("cannot calibrate");
        assert_eq!(
            chain(&error),
            "error: cannot calibrate\n  because: job.sslj: no space left"
        );
    }
}
