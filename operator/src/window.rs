//! How many writes may be under way at once, told by the API server's own signals.
//!
//! The window grows while answers come about as fast as they ever do, shrinks when they take long, and
//! halves when the server says that it has too much to do, does not answer in time or fails: additive
//! increase and multiplicative decrease, as TCP has it.

use std::time::Duration;

use tokio::time::Instant;

/// The most at once: enough to keep an API server busy, few enough not to crowd others out. With more, an
/// API server of two cores was not faster.
const MOST: f64 = 32.0;

/// Answers that take up to this many times the best, or up to [`FAST`], are as fast as ever.
const NEAR: u32 = 4;

/// Kubernetes promises changes of single objects within a second (99 in 100): a quarter of that is no
/// sign of trouble, and what 32 at once take on an API server of two cores.
const FAST: Duration = Duration::from_millis(250);

/// The best time is that of the last five to ten minutes: a server that has moved is another one.
const BEST_LASTS: Duration = Duration::from_secs(300);

/// How long a server that is busy and does not say how long is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that it is believed to want.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How an attempt ended, as far as that tells of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It has answered; whether with yes or no does not matter.
    Answered,
    /// It asks for a pause, of this length where it says so.
    Busy(Option<Duration>),
    /// It has failed, or has not answered in time.
    Troubled,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Window {
    /// How many; what is behind the point has been earned of the next one.
    size: f64,
    best: Best,
    /// When it was last halved. What was sent before that and fails tells the same again.
    halved: Option<Instant>,
    opens: Option<Instant>,
}

/// The shortest time of an answer, of this period and of the one before.
#[derive(Debug, Default)]
struct Best {
    now: Option<Duration>,
    before: Option<Duration>,
    since: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            // No slow start: a resize of some hundred nodes would be over before it is.
            size: MOST,
            best: Best::default(),
            halved: None,
            opens: None,
        }
    }
}

impl Window {
    /// How many may be under way.
    pub(crate) fn size(&self) -> usize {
        // At least 1 and at most MOST: nothing is lost.
        self.size as usize
    }

    /// Whether one more may be sent while so many are under way.
    pub(crate) fn has_room(&self, under_way: usize, now: Instant) -> bool {
        under_way < self.size() && self.opens(now).is_none()
    }

    /// When the pause that the server has asked for is over; `None`: there is none.
    pub(crate) fn opens(&self, now: Instant) -> Option<Instant> {
        self.opens.filter(|opens| now < *opens)
    }

    /// One of `under_way`, sent at `sent`, has ended so.
    pub(crate) fn take(&mut self, signal: Signal, under_way: usize, sent: Instant, now: Instant) {
        match signal {
            Signal::Answered => self.answered(under_way, now.duration_since(sent), now),
            Signal::Troubled => self.halve(sent, now),
            Signal::Busy(pause) => {
                self.halve(sent, now);
                let opens = now + pause.unwrap_or(PAUSE).min(LONGEST_PAUSE);
                self.opens = Some(self.opens.map_or(opens, |known| known.max(opens)));
            }
        }
    }

    fn answered(&mut self, under_way: usize, took: Duration, now: Instant) {
        let near = (self.best.with(took, now) * NEAR).max(FAST);
        if took > near * 2 {
            self.size -= 1.0 / self.size;
        } else if took <= near && under_way * 2 >= self.size() {
            // One that is mostly empty cannot tell whether more would fit.
            self.size += 1.0 / self.size;
        }
        self.size = self.size.clamp(1.0, MOST);
    }

    fn halve(&mut self, sent: Instant, now: Instant) {
        if self.halved.is_some_and(|halved| sent < halved) {
            return;
        }
        self.halved = Some(now);
        self.size = (self.size / 2.0).max(1.0);
    }
}

impl Best {
    /// The best time with one more.
    fn with(&mut self, took: Duration, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= BEST_LASTS {
            (self.before, self.now, self.since) = (self.now, None, Some(now));
        }
        let best = self.now.map_or(took, |best| best.min(took));
        self.now = Some(best);
        self.before.map_or(best, |before| before.min(best))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FASTEST: Duration = Duration::from_millis(5);

    /// A server that is asked by a window that is always full, one round of answers after the other.
    struct Run {
        window: Window,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            let window = Window::default();
            let now = Instant::now();
            Self { window, now }
        }

        /// A round in which each answer takes so long.
        fn round(&mut self, took: Duration) -> usize {
            let under_way = self.window.size();
            let sent = self.now;
            self.now += took;
            for _ in 0..under_way {
                self.window
                    .take(Signal::Answered, under_way, sent, self.now);
            }
            self.window.size()
        }

        fn rounds(&mut self, count: usize, took: Duration) -> usize {
            (0..count).map(|_| self.round(took)).last().unwrap()
        }

        fn trouble(&mut self, signal: Signal) {
            let sent = self.now;
            self.now += Duration::from_millis(1);
            self.window.take(signal, self.window.size(), sent, self.now);
        }
    }

    #[test]
    fn it_is_as_large_as_it_may_be_while_answers_are_fast() {
        let mut run = Run::new();
        assert_eq!(run.window.size(), 32);
        assert_eq!(run.rounds(10, FASTEST), 32);
    }

    #[test]
    fn answers_that_take_longer_stop_its_growth_and_those_that_take_long_shrink_it() {
        let mut run = Run::new();
        run.round(FASTEST);
        run.trouble(Signal::Troubled);
        assert_eq!(run.window.size(), 16);
        assert_eq!(run.rounds(5, Duration::from_millis(400)), 16);
        let shrunk = run.rounds(8, Duration::from_millis(800));
        assert!((4..=9).contains(&shrunk), "{shrunk}");
        assert_eq!(run.rounds(200, Duration::from_millis(800)), 1);
        // As fast as before: one more with every round.
        assert_eq!(run.rounds(3, FASTEST), 3);
    }

    #[test]
    fn where_the_best_takes_long_itself_it_is_no_sign_of_trouble() {
        let mut run = Run::new();
        let far_away = Duration::from_millis(300);
        assert_eq!(run.rounds(10, far_away), 32);
        assert_eq!(run.rounds(10, far_away * 3), 32);
    }

    #[test]
    fn a_server_that_has_moved_away_is_another_one_after_a_while() {
        let mut run = Run::new();
        run.rounds(3, FASTEST);
        let far_away = Duration::from_millis(600);
        assert!(run.rounds(40, far_away) < 32);
        run.now += BEST_LASTS * 2;
        run.round(far_away);
        run.now += BEST_LASTS * 2;
        assert_eq!(run.rounds(100, far_away), 32);
    }

    #[test]
    fn what_is_mostly_empty_tells_nothing_of_more() {
        let mut window = Window::default();
        let sent = Instant::now();
        window.take(Signal::Troubled, 32, sent, sent + FASTEST);
        for _ in 0..100 {
            window.take(Signal::Answered, 1, sent, sent + FASTEST);
        }
        assert_eq!(window.size(), 16);
    }

    #[test]
    fn it_halves_once_for_all_that_was_sent_before() {
        let mut run = Run::new();
        run.rounds(3, FASTEST);
        let sent = run.now;
        run.now += FASTEST;
        for _ in 0..20 {
            run.window.take(Signal::Troubled, 32, sent, run.now);
        }
        assert_eq!(run.window.size(), 16);
        for expected in [8, 4, 2, 1, 1] {
            run.trouble(Signal::Troubled);
            assert_eq!(run.window.size(), expected);
        }
        assert_eq!(run.round(FASTEST), 2);
        assert_eq!(run.rounds(2, FASTEST), 3);
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_kept() {
        let mut run = Run::new();
        run.trouble(Signal::Busy(Some(Duration::from_secs(7))));
        assert_eq!(run.window.size(), 16);
        let opens = run.now + Duration::from_secs(7);
        assert_eq!(run.window.opens(run.now), Some(opens));
        assert!(!run.window.has_room(0, run.now));
        // A shorter one that comes later does not end it.
        run.trouble(Signal::Busy(None));
        assert_eq!(run.window.opens(run.now), Some(opens));
        assert!(run.window.has_room(0, opens));
        assert_eq!(run.window.opens(opens), None);
    }

    #[test]
    fn nobody_is_believed_to_want_a_day() {
        let mut run = Run::new();
        run.trouble(Signal::Busy(Some(Duration::from_secs(86_400))));
        assert_eq!(run.window.opens(run.now), Some(run.now + LONGEST_PAUSE));
    }
}
