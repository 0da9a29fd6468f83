"""Pages of Markdown: their code blocks, and what comments above a block say of it."""

import re

FENCE = re.compile(r"^(\s*)```(\w*)$")
COMMENT = re.compile(r"<!--(.*?)-->", re.S)


class Block:
    """A code block: its number on the page, the line of its fence, and what stands between it and the one before."""

    def __init__(self, number, line, language, text, above):
        self.number, self.line, self.language, self.text, self.above = number, line, language, text, above

    @property
    def lines(self):
        return [line.strip() for line in self.text.splitlines()]

    @property
    def first(self):
        """The first line that is no comment."""
        for line in self.lines:
            if line and not line.startswith("#"):
                return line
        return ""

    @property
    def marks(self):
        """What comments right above the block say: `<!-- name: value -->`."""
        found, rest = {}, self.above.rstrip()
        while rest.endswith("-->"):
            start = rest.rindex("<!--")
            name, _, value = rest[start + 4 : -3].strip().partition(":")
            found[name.strip()] = value.strip()
            rest = rest[:start].rstrip()
        return found

    @property
    def follows(self):
        """Whether nothing but comments stands between this block and the one before."""
        return self.number > 1 and not COMMENT.sub("", self.above).strip()


def blocks(page):
    """The code blocks of a page, from top to bottom."""
    lines = page.splitlines()
    found, index, since = [], 0, 0
    while index < len(lines):
        fence = FENCE.match(lines[index])
        if fence:
            end = next(i for i in range(index + 1, len(lines)) if lines[i].strip() == "```")
            text = "\n".join(line.removeprefix(fence[1]) for line in lines[index + 1 : end])
            above = "\n".join(lines[since:index])
            found.append(Block(len(found) + 1, index + 1, fence[2], text + "\n", above))
            index, since = end, end + 1
        index += 1
    return found
