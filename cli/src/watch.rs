//! Looking again and again, until somebody ends it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use tokio::time::{MissedTickBehavior, interval};

use crate::context::small_runtime;
use crate::error::{CliError, Exit};
use crate::terminal::{self, Signals};
use crate::ui::{self, LABEL};

/// How often is looked. Machines are asked each time, and each answers one at a time.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// What others know by its number: the screen beside the usual one, without a cursor (xterm's control sequences).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows what `look` returns: on a terminal drawn anew at each look, elsewhere printed when it changed. With `json` it is
/// one line, and nothing is put around it.
///
/// Ends with the first error of `look`, or as interrupted.
pub(crate) fn watch(
    json: bool,
    mut look: impl AsyncFnMut() -> Result<String, CliError>,
) -> Result<Exit, CliError> {
    small_runtime()?.block_on(async {
        let is_live = !json && terminal::can_redraw();
        let mut signals = if is_live { Signals::catch_all()? } else { Signals::catch()? };
        // Before the screen is taken: what cannot be looked at even once is told as always.
        let mut shown = tokio::select! {
            first = look() => first?,
            () = signals.any() => return Ok(Exit::Interrupted),
        };
        let mut resized = terminal::resized()?;
        let screen = is_live.then(Screen::enter).transpose()?;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await;
        let mut changed = true;
        let ended = loop {
            match &screen {
                Some(screen) => screen.draw(&shown)?,
                None if changed && json => ui::print(&shown)?,
                None if changed => ui::print(&block(&shown))?,
                None => {}
            }
            let next = async {
                tokio::select! {
                    _ = looks.tick() => look().await.map(Some),
                    _ = resized.recv() => Ok(None),
                }
            };
            let seen = tokio::select! {
                seen = next => seen,
                () = signals.any() => break Ok(Exit::Interrupted),
            };
            match seen {
                Ok(Some(seen)) => {
                    changed = seen != shown;
                    shown = seen;
                }
                Ok(None) => changed = false,
                Err(error) => break Err(error),
            }
        };
        if screen.is_some() {
            drop(screen);
            // What was seen last is what one wants to have when one goes on.
            ui::print(&shown)?;
        }
        ended
    })
}

/// What is printed where nothing can be drawn over.
fn block(text: &str) -> String {
    format!("{LABEL}{:.0}{LABEL:#}\n{text}\n", Timestamp::now())
}

/// The screen beside the usual one, which is back once this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, CliError> {
        put(ENTER)?;
        Ok(Self)
    }

    fn draw(&self, text: &str) -> Result<(), CliError> {
        let now = Zoned::now().strftime("%H:%M:%S");
        let head = format!("{LABEL}{now}{LABEL:#}  every {} s, Ctrl-C ends\n\n", LOOK.as_secs());
        let size = terminal::size();
        let frame = frame(&format!("{head}{text}"), size.columns.into(), size.rows.into());
        put(CLEAR)?;
        // Through the hand that knows whether colour is wanted.
        ui::print(&frame)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = put(LEAVE);
    }
}

fn put(sequence: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(sequence.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| crate::error::stdout_failed(&error))
}

/// As much of `text` as fits, each line cut at the edge, and no line end that would make the screen roll.
fn frame(text: &str, columns: usize, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let all = lines.len();
    let shown = if rows == 0 || all <= rows { all } else { rows.saturating_sub(1) };
    let mut frame = String::new();
    for (number, line) in lines.iter().take(shown).enumerate() {
        if number > 0 {
            frame.push('\n');
        }
        frame.push_str(&ui::clipped(line, columns));
    }
    if shown < all {
        // Writing to a String cannot fail.
        let _ = write!(frame, "\n… {} more lines", all - shown);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_holds_what_fits() {
        assert_eq!(frame("a\nb\n", 80, 2), "a\nb");
        assert_eq!(frame("a\nb\nc\nd\n", 80, 3), "a\nb\n… 2 more lines");
        assert_eq!(frame("a long line\nb\n", 6, 24), "a lon…\nb");
        assert_eq!(frame("a\nb\n", 0, 0), "a\nb", "a terminal that tells no size");
    }
}
