//! Rows on their way to whoever asked: the last of them, where only those are wanted; two histories of one
//! machine in the order of time.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::logged::Logged;
use super::{LAST_MOST, Query, ROWS, Reading, Row};

/// See the module.
pub(super) struct Out {
    rows: mpsc::Sender<Row>,
    /// The last rows, while they may not be the last.
    last: Option<(usize, VecDeque<Row>)>,
}

impl Out {
    pub fn new(query: &Query, rows: mpsc::Sender<Row>) -> Out {
        let last = query.last.filter(|_| !query.raw);
        Out { rows, last: last.map(|last| (last.min(LAST_MOST), VecDeque::new())) }
    }

    fn all(rows: mpsc::Sender<Row>) -> Out {
        Out { rows, last: None }
    }

    /// Gives them. False: nobody listens.
    pub async fn give(&mut self, rows: Vec<Row>) -> bool {
        for row in rows {
            if let Some((most, last)) = &mut self.last {
                if last.len() >= *most {
                    last.pop_front();
                }
                if *most > 0 {
                    last.push_back(row);
                }
            } else if self.rows.send(row).await.is_err() {
                return false;
            }
        }
        !self.rows.is_closed()
    }

    /// Those were the last: what comes now is given as it comes. False: nobody listens.
    pub async fn end(&mut self) -> bool {
        for row in self.last.take().map(|(_, rows)| rows).unwrap_or_default() {
            if self.rows.send(row).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Nobody listens any more.
    pub async fn closed(&self) {
        self.rows.closed().await;
    }
}

/// Both histories, the older row first; then each gives its own. False: nobody listens.
pub(super) async fn merged(
    query: &Query,
    console: &mut Reading,
    logged: &mut Logged,
    rows: &mpsc::Sender<Row>,
) -> bool {
    let ((one, mut ones), (other, mut others)) = (mpsc::channel(ROWS), mpsc::channel(ROWS));
    console.out = Out::all(one);
    logged.out = Out::all(other);
    let said = async {
        console.history().await;
        console.out = Out::all(rows.clone());
    };
    let logs = async {
        logged.history().await;
        logged.out = Out::all(rows.clone());
    };
    let merge = async move {
        let mut out = Out::new(query, rows.clone());
        let (mut first, mut second) = (ones.recv().await, others.recv().await);
        loop {
            let older = match (&first, &second) {
                (Some(one), Some(other)) => one.seen.at <= other.seen.at,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return out.end().await,
            };
            let row = match older {
                true => std::mem::replace(&mut first, ones.recv().await),
                false => std::mem::replace(&mut second, others.recv().await),
            };
            if !out.give(row.into_iter().collect()).await {
                return false;
            }
        }
    };
    tokio::join!(said, logs, merge).2
}
