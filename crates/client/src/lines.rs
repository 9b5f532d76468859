//! Lines of standard input: each is a text, or why it is none, and neither ends the reading.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;

/// A line without its end (a line feed, and a carriage return before it), or what is wrong with it.
pub type Line = Result<String, String>;

/// Reads standard input to its end, lines of at most `max` bytes. A task of its own: giving up half
/// a line would lose it.
pub async fn read(max: usize, to: mpsc::Sender<std::io::Result<Line>>) {
    let mut input = BufReader::with_capacity(64 * 1024, tokio::io::stdin());
    while let Some(line) = next(&mut input, max).await.transpose() {
        let failed = line.is_err();
        if to.send(line).await.is_err() || failed {
            return;
        }
    }
}

/// The next line; `None` after the last. One that is too long is read to its end and not kept.
async fn next<R: AsyncBufRead + Unpin>(from: &mut R, max: usize) -> std::io::Result<Option<Line>> {
    let (mut line, mut length, mut any) = (Vec::new(), 0usize, false);
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() && !any {
            return Ok(None);
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
        length += part.len();
        // One more for a carriage return.
        if length <= max + 1 {
            line.extend_from_slice(part);
        }
        let (used, over) =
            (end.map_or(chunk.len(), |end| end + 1), end.is_some() || chunk.is_empty());
        from.consume(used);
        if over {
            break;
        }
    }
    if length > max + 1 {
        return Ok(Some(Err(format!("the text has {length} bytes; at most {max} fit"))));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8(line).map_err(|_| "the text is not UTF-8".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    async fn lines(input: &[u8]) -> Vec<Line> {
        let mut reader = BufReader::with_capacity(16, input);
        let mut lines = Vec::new();
        while let Some(line) = next(&mut reader, MAX).await.unwrap() {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return_and_at_the_end() {
        let text = |text: &str| Ok(text.to_owned());
        let read = lines(b"one\ntwo\r\n\n \nthree, which is longer than the buffer").await;
        let third = text("three, which is longer than the buffer");
        assert_eq!(read, [text("one"), text("two"), text(""), text(" "), third]);
        assert_eq!(lines(b"").await, []);
    }

    #[tokio::test]
    async fn what_is_no_text_is_told_by_its_line() {
        let mut input = b"\xff\xfe\n".to_vec();
        input.extend(vec![b'x'; MAX]);
        input.push(b'\n');
        input.extend(vec![b'y'; MAX + 100]);
        input.push(b'\n');
        let read = lines(&input).await;
        assert!(matches!(&read[0], Err(why) if why.contains("UTF-8")));
        assert!(read[1].is_ok());
        assert!(matches!(&read[2], Err(why) if why.contains("200 bytes")), "{:?}", read[2]);
    }
}
