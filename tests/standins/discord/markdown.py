"""What a Discord client makes of a text: what is read there, and what in it is more than text.

After Discord's own message formatting, and a parser that is held against its desktop client
(github.com/LyricLy/parse-discord): a backslash makes text of any mark that follows.
"""

from __future__ import annotations

import re

_MARKUP = re.compile(
    r"""
  \\(?P<escaped>[^0-9A-Za-z\s])
| (?P<live>
    <(?:@[!&]?|\#)[0-9]+>                 # a person, a role, a channel
  | </[^:>]+:[0-9]+>                      # a command
  | <t:-?[0-9]+(?::[tTdDfFR])?>           # a time
  | <a?:\w+:[0-9]+>                       # an emoji of a server
  | <id:\w+>                              # a page of the server
  | <[^:\s>]+:/?[^\s>]*/[^\s>]+>          # a link without its preview
  | <(?:[^@\s>]+@[^@\s>]+|\+[0-9]+)>      # a mail address, a telephone number
  | @everyone | @here
  | (?:https?|steam|discord)://[^\s<]+
  | \[[^\[\]]*\]\([^\s)]+\)               # a masked link
  | :[^\s:]+:                             # an emoji by its name
  | (?P<tick>`+).+?(?<!`)(?P=tick)(?!`)   # code, and a block of it
  | \*(?:\\.|[^\\])+?\* | _(?:\\.|[^\\])+?_ | ~~.+?~~ | \|\|.+?\|\|
  | ^[ \t]*(?:\#{1,3}|>{1,3}|-\#|[-*]|[0-9]+\.)[ ]+\S
  )
""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


def read(text: str) -> tuple[str, list[str]]:
    """The text as it is read if nothing in it is more than text, and what is more than that."""
    live = [match["live"] for match in _MARKUP.finditer(text) if match["live"]]
    return _MARKUP.sub(lambda match: match["escaped"] or match["live"], text), live
