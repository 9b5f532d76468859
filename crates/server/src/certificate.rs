//! The certificate of a running server: taken anew when its files change, and told of before it
//! ends.
//!
//! New connections use the new certificate at once. A link proves itself only when it is made, so
//! the links are dialled anew, one after the other; clients notice nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatty_core::id::Slot;
use chatty_core::io::Input;
use chatty_net::Endpoint;
use chatty_net::pki::Validity;
use tokio::sync::Notify;

use crate::config::Config;
use crate::credentials::{self, Proof};
use crate::driver::inbox::{Doors, Event};

/// The files are looked at this often; after a renewal one link is dialled anew at each look.
const LOOK: Duration = Duration::from_secs(5);
/// With less than this left the log warns…
const WARN_BELOW: Duration = Duration::from_hours(30 * 24);
/// … and with less than this it is an error.
const ERROR_BELOW: Duration = Duration::from_hours(7 * 24);
/// It is said again after this.
const AGAIN: Duration = Duration::from_hours(24);

/// Takes the certificate anew. Clones are the same.
#[derive(Clone)]
pub(crate) struct Renewer {
    config: Arc<Config>,
    endpoint: Endpoint,
    doors: Doors,
    /// Diallers, each told by its bell to dial although it is linked.
    bells: Arc<[(Slot, Arc<Notify>)]>,
    state: Arc<Mutex<State>>,
}

struct State {
    shown: Files,
    validity: Validity,
    /// Links that still show the old certificate.
    to_redial: VecDeque<Slot>,
}

/// The contents of the files that may change.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: String,
    key: String,
    authority: String,
}

impl Files {
    fn of(proof: &Proof) -> Self {
        Self {
            cert: proof.credentials.cert_pem.clone(),
            key: proof.credentials.key_pem.clone(),
            authority: proof.authority_pem.clone(),
        }
    }
}

impl Renewer {
    pub(crate) fn new(
        config: Config,
        endpoint: Endpoint,
        doors: Doors,
        proof: &Proof,
        bells: Vec<(Slot, Arc<Notify>)>,
    ) -> Self {
        let validity = proof.validity;
        let state = State { shown: Files::of(proof), validity, to_redial: VecDeque::new() };
        doors.tell(certificate(validity));
        Self {
            config: Arc::new(config),
            endpoint,
            doors,
            bells: bells.into(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the files as they are now; tells what came of it.
    pub(crate) async fn reload_now(&self) -> Result<String, String> {
        let this = self.clone();
        // It reads files.
        let done = tokio::task::spawn_blocking(move || this.reload()).await;
        done.unwrap_or_else(|panic| Err(format!("a fault in the program: {panic}")))
    }

    fn reload(&self) -> Result<String, String> {
        let proof = credentials::load(&self.config).map_err(|error| error.to_string())?;
        let files = Files::of(&proof);
        let mut state = self.state();
        if state.shown == files {
            return Ok(format!("nothing new: {}", left_in_words(state.validity)));
        }
        if let Err(error) = self.endpoint.reload(&proof.credentials, &proof.authority_pem) {
            let file = self.config.certificate.display();
            return Err(format!("{file}: {error}; the server goes on with the certificate it has"));
        }
        state.shown = files;
        state.validity = proof.validity;
        state.to_redial = self.bells.iter().map(|(slot, _)| slot.clone()).collect();
        drop(state);
        self.doors.tell(certificate(proof.validity));
        let what = format!("a new certificate is shown: {}", left_in_words(proof.validity));
        tracing::info!("{what}");
        Ok(what)
    }

    /// Looks at the files and at the calendar until the server stops.
    pub(crate) async fn run(self) {
        let mut alarm = Alarm::default();
        let (mut failed, mut times) = (String::new(), 0_u32);
        let began = tokio::time::Instant::now();
        loop {
            let (validity, now) = (self.state().validity, SystemTime::now());
            if let Some(alert) = alarm.look(began.elapsed(), Alert::of(validity, now)) {
                alert.tell(&self.config.name, validity.left(now));
            }
            tokio::time::sleep(LOOK).await;
            let why = self.reload_now().await.err().unwrap_or_default();
            times = if why == failed { times.saturating_add(1) } else { 1 };
            failed = why;
            // Files that are written one after the other fit again at the next look.
            if !failed.is_empty() && times == 2 {
                tracing::warn!("{failed}");
            }
            self.redial_next();
        }
    }

    fn redial_next(&self) {
        let Some(next) = self.state().to_redial.pop_front() else { return };
        if let Some((_, bell)) = self.bells.iter().find(|(slot, _)| *slot == next) {
            bell.notify_one();
        }
    }
}

fn certificate(validity: Validity) -> Event {
    let ms = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    Event::Input(Input::Certificate(ms(validity.begins()), ms(validity.ends())))
}

fn left_in_words(validity: Validity) -> String {
    let left = validity.left(SystemTime::now()).as_secs();
    match left {
        0 => "which has expired".into(),
        1..172_800 => format!("valid for {} more minutes", left / 60),
        _ => format!("valid for {} more days", left / 86_400),
    }
}

/// How urgent a renewal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alert {
    Soon,
    Now,
    Over,
    /// Its time has not begun: the clock is wrong.
    Early,
}

impl Alert {
    fn of(validity: Validity, now: SystemTime) -> Option<Self> {
        if now < validity.begins() { Some(Self::Early) } else { Self::of_left(validity.left(now)) }
    }

    fn of_left(left: Duration) -> Option<Self> {
        if left.is_zero() {
            Some(Self::Over)
        } else if left < ERROR_BELOW {
            Some(Self::Now)
        } else {
            (left < WARN_BELOW).then_some(Self::Soon)
        }
    }

    fn tell(self, name: &Slot, left: Duration) {
        let days = left.as_secs() / 86_400;
        let renew = format!("renew it with: chatty-server renew --dir DIR {name}");
        match self {
            Self::Soon => tracing::warn!(days, "the certificate ends in {days} days; {renew}"),
            Self::Now => tracing::error!(days, "the certificate ends in {days} days; {renew}"),
            Self::Over => tracing::error!(
                "the certificate has expired, by this machine's clock: mend the clock if it is \
                 wrong, else no server or client connects to this one any more; {renew}"
            ),
            Self::Early => tracing::error!(
                "the certificate was made in the future, by this machine's clock: mend the clock"
            ),
        }
    }
}

/// Says each alert once, and again every day.
#[derive(Debug, Default)]
struct Alarm {
    said: Option<(Alert, Duration)>,
}

impl Alarm {
    fn look(&mut self, now: Duration, alert: Option<Alert>) -> Option<Alert> {
        let alert = alert?;
        let said = self.said.is_some_and(|(said, at)| said == alert && now < at + AGAIN);
        if said {
            return None;
        }
        self.said = Some((alert, now));
        Some(alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: u64) -> Duration {
        Duration::from_hours(24 * days)
    }

    #[test]
    fn a_certificate_is_told_of_daily_from_30_days_on_and_as_an_error_from_7() {
        let mut alarm = Alarm::default();
        let mut said = Vec::new();
        for hour in 0..24 * 95 {
            let now = Duration::from_hours(hour);
            let left = days(90).saturating_sub(now);
            said.extend(alarm.look(now, Alert::of_left(left)).map(|alert| (alert, left)));
        }
        let count = |alert| said.iter().filter(|(said, _)| *said == alert).count();
        assert_eq!((count(Alert::Soon), count(Alert::Now), count(Alert::Over)), (23, 7, 5));
        let first = |alert| said.iter().find(|(said, _)| *said == alert).unwrap().1;
        assert!(first(Alert::Soon) < days(30) && first(Alert::Soon) > days(29));
        assert!(first(Alert::Now) < days(7) && first(Alert::Now) > days(6));
    }
}
