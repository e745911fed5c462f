//! Giving up a frame: by a time, or because somebody says so.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A switch that ends calls early; clones share it. It may be flipped from any thread, before a call or during it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

/// When to give up a frame. The default is never.
///
/// ```
/// use ssl_edge_runtime::{CancelToken, Limit};
/// use std::time::Duration;
/// let token = CancelToken::default();
/// let limit = Limit::within(Duration::from_millis(50)).or_when(&token);
/// assert!(limit.passed().is_none());
/// token.cancel();
/// assert!(limit.passed().is_some());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Limit {
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
}

/// Why a frame was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The time was over.
    Deadline,
    /// A [`CancelToken`] was flipped.
    Cancelled,
}

/// How far a call came that was given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Frames that were done.
    pub frames: usize,
    /// Frames of the call.
    pub of_frames: usize,
    /// Steps that the next frames had behind them: blocks of the native engine, operations of a graph.
    pub steps: usize,
    /// Steps of a frame.
    pub of_steps: usize,
}

impl CancelToken {
    /// Ends calls that were given this token, now and later.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Makes the token as new, for calls that start from here on.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Limit {
    /// Gives up after `time` from now. A time too long to count is no limit.
    pub fn within(time: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(time),
            cancel: None,
        }
    }

    /// Gives up at `deadline`.
    pub fn at(deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            cancel: None,
        }
    }

    /// Also gives up when `token` is flipped.
    #[must_use]
    pub fn or_when(self, token: &CancelToken) -> Self {
        Self {
            cancel: Some(token.clone()),
            ..self
        }
    }

    /// Whether it ever gives up.
    pub fn is_never(&self) -> bool {
        self.deadline.is_none() && self.cancel.is_none()
    }

    /// Why to give up now, or `None` to go on.
    pub fn passed(&self) -> Option<Interruption> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Some(Interruption::Cancelled);
        }
        let over = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        over.then_some(Interruption::Deadline)
    }
}

impl Interruption {
    /// The end of a sentence that says what can be done about it; empty where it was meant.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Deadline => ". Give it more time, more threads, or a smaller encoder",
            Self::Cancelled => "",
        }
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the time given for it was over",
            Self::Cancelled => "it was cancelled",
        })
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} frames were done", self.frames, self.of_frames)?;
        if self.frames < self.of_frames && self.of_steps > 0 {
            write!(
                f,
                ", and {} of {} steps of the next",
                self.steps, self.of_steps
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_passes_by_time_or_by_token() {
        assert!(Limit::default().is_never() && Limit::default().passed().is_none());
        assert!(Limit::within(Duration::MAX).passed().is_none());
        assert_eq!(
            Limit::within(Duration::ZERO).passed(),
            Some(Interruption::Deadline)
        );
        let token = CancelToken::default();
        let limit = Limit::at(Instant::now() + Duration::from_secs(3600)).or_when(&token);
        assert!(!limit.is_never() && limit.passed().is_none());
        token.clone().cancel();
        assert_eq!(limit.passed(), Some(Interruption::Cancelled));
        token.reset();
        assert!(limit.passed().is_none());
    }
}
