//! The commands that the documentation tells people to type.

/// A fenced block of a Markdown file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence: `sh`, `ini`, `sh at=10.0.0.1`.
    pub info: String,
    /// What stands inside.
    pub code: String,
}

impl Block {
    /// Its language: the first word of the info.
    pub fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or("")
    }

    /// The value of `name=value` in the info.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.info.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The fenced blocks of a Markdown text, in order.
pub fn code_blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block { info: info.trim().into(), code: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.code.push_str(line);
                block.code.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_with_their_language_and_attributes() {
        let blocks = code_blocks("a\n```sh at=m1\nls\npwd\n```\nb\n```toml\n[x]\n```\n");

        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].code, "ls\npwd\n");
        assert_eq!((blocks[0].language(), blocks[0].attribute("at")), ("sh", Some("m1")));
        assert_eq!((blocks[1].language(), blocks[1].attribute("at")), ("toml", None));
    }
}
