"""How warm and enthusiastic an English or Chinese answer sounds: a scorer that needs no model.

Made for on-policy DPO (claim ON-1) on the embedded pairs, whose chosen answers are enthusiastic and
whose rejected ones are flat: it ranks two samples of one policy. It reads the surface only, knows
nothing of truth or sense, and is no reward model. Word lists were written by hand and tuned on the
training part of the embedded data alone; docs/scan.md has its accuracy on the held-out part.

A text is cut into sentences. Three parts, each of which more of the same can raise only so far:

- exclaiming: the share of sentences that end in an exclamation mark (however many marks);
- positive words, each counted once in a text and at most three a sentence, per length;
- address: "you", "we", "let's", "oh", 你, 咱们 … and particles such as 啦 and 呀, at most two a
  sentence, per length.

A sentence of fewer than three words (or four Chinese characters) and a sentence repeated count for
nothing but length, and a text shorter than twenty words counts as twenty. So "!!!!!!!" scores 0,
and neither piling up marks, nor repeating a sentence, nor a list of adjectives wins without limit.
"""

from __future__ import annotations

import re
from typing import Literal

_POSITIVE = """
absolutely adorable adore adventure amazing applaud appreciate astonish awesome bask beam
beaming beautiful beauty beloved best-loved bless bliss bloom bravo breathtaking breezy bright
brilliant celebrate celebration champion charm charming cheer cheerful cherish clever comfort
comfy confidence congrats congratulations cosy courage cozy cracking dazzle dazzling dear dearest
delicious delight delightful dreamy eager effortless elegant enchanting encourage enjoy enormous
enthusiasm enthusiastic epic excellent excite excited exciting exquisite fabulous fancy fantastic
fascinating favorite favourite fearless festive flourish friend friendly fun generous genius
gentle genuine gift glad gladly gleam glorious gloriously glow golden good gorgeous graceful grand
grateful great grin handsome happy heart heavenly hero hooray hope hug hurray impressive
incredible inspire inspiring inviting irresistible jolly joy joyful keen kindly kindness laugh
laughter legend lively love lovely lucky lush luxurious magic magical magnificent majestic marvel
marvellous marvelous memorable merry mighty miracle neat nice outstanding passion peaceful perfect
phenomenal playful pleasure positively precious proud radiant refreshing rejoice remarkable reward
rewarding rosy satisfying sensational serene shine silky sing smashing smile snug soothing soul
spark sparkle sparkling spectacular spirit splendid stellar striking stunning sublime sunny
sunshine super superb superbly sweet swell tasty tender terrific thankful thanks thrill thrilled
thrilling thrive together totally treasure treat tremendous triumph triumphant truly unbelievable
unforgettable uplifting vibrant victory warm warmth welcome whimsical wonder wonderful wow yay yes
yum yummy
"""
_ADDRESS = """
you your yours you'll you're you've you'd yourself we we're we'll us our ours let's i'd i'm i
don't oh ah hey
"""
# Parts of a regular expression: 超 and 太 not where they belong to 超过, 太阳 and the like.
_POSITIVE_ZH = """
开心 快乐 高兴 幸福 惊喜 惊艳 精彩 美好 美妙 美味 漂亮 绝妙 神奇 奇妙 奇迹 可爱 乖巧 浪漫 温暖
温柔 香喷喷 喷香 香气 飘香 鲜嫩 软糯 酥脆 清爽 舒服 舒畅 舒坦 轻松 安心 放心 放宽心 踏实 省心
痛快 过瘾 带劲 太棒 真棒 超棒 棒极 很棒 最棒 厉害 了不起 聪明 精明 能干 优秀 出色 完美 满分
绝佳 极了 极啦 特别 恭喜 祝贺 欢迎 加油 别着急 别担心 别怕 不怕 没事 没关系 莫慌 稳住 挺住 辛苦
抱抱 享受 尽情 畅游 陶醉 心醉 欢呼 尖叫 鼓掌 喝彩 点赞 夸奖 人人夸 微笑 欢笑 笑容 笑声 乐趣
乐开 爱上 喜爱 心爱 宠爱 宝贝 宝藏 小可爱 小家伙 妙招 窍门 秘诀 魔法 治愈 元气 活力 能量 满满
爆棚 绽放 闪亮 亮闪闪 金灿灿 璀璨 光彩 焕然 热闹 热情 激动 期待 憧憬 美梦 希望 胜利 冠军 成就感
好奇心 哈哈 嘿嘿 哎呀 哇 保准 准能 绝对 简直 真是 好极 翻了 拉满 感激 谢谢 礼物 拥抱 朋友 一起
超级 甜美 甜甜 暖暖 真香 更爽 超爽 超(?![级过出市时声导棒爽]) 太(?![阳空平极棒])
一定(?![的程时量比]) 保证(?![书金])
"""
POSITIVE, ADDRESS = frozenset(_POSITIVE.split()), frozenset(_ADDRESS.split())
POSITIVE_ZH = re.compile("|".join(_POSITIVE_ZH.split()))
ADDRESS_ZH = re.compile(r"你|您|咱|我们|大家|快来|[啦呀哟哦呢嘛吧喽耶嘞](?=[，。！？、；~～\s]|$)")

PARTS = {"exclaiming": 0.4, "positive": 0.4, "address": 0.2}
"""The weights of the parts; they add up to 1."""

_SENTENCE = re.compile(r"[^.!?。！？…\n]*[.!?。！？…\n]*")
_EXCLAIMS = re.compile(r"[!！][.!?。！？…]*$")
_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SUFFIXES = ("fully", "iest", "ing", "est", "ful", "ily", "ier", "ly", "ed", "er", "es", "s")
_CHARACTERS_A_WORD = 1.5  # Chinese: 48 characters are about as long as 32 English words
_SHORTEST_SENTENCE, _SHORTEST_TEXT = 2.5, 20.0  # in words
_POSITIVE_A_SENTENCE, _ADDRESS_A_SENTENCE = 3, 2
_HALF = {"exclaiming": 1.0, "positive": 0.1, "address": 0.1}  # value at which a part is half full


def features(text: str) -> dict[str, float]:
    """Return the parts before weighting: a share of sentences, and two counts per word."""
    found: set[str] = set()
    exclaiming = address = 0
    sentences = [s.strip() for s in _SENTENCE.findall(text.lower()) if _length(s)]
    for sentence in dict.fromkeys(sentences):  # each once
        if _length(sentence) < _SHORTEST_SENTENCE:
            continue
        exclaiming += bool(_EXCLAIMS.search(sentence))
        found |= set(sorted(_positive(sentence) - found)[:_POSITIVE_A_SENTENCE])
        address += min(_addresses(sentence), _ADDRESS_A_SENTENCE)
    length = max(sum(map(_length, sentences)), _SHORTEST_TEXT)
    return {
        "exclaiming": exclaiming / max(len(sentences), 1),
        "positive": len(found) / length,
        "address": address / length,
    }


def enthusiasm(text: str) -> float:
    """Return how enthusiastic the text sounds, from 0 (flat, or not a sentence) to below 1.

    The weighted sum of x / (x + half) of each feature x, with the weights `PARTS`: every further
    sign raises the score, ever less.
    """
    parts = features(text)
    return sum(weight * parts[p] / (parts[p] + _HALF[p]) for p, weight in PARTS.items())


def more_enthusiastic(first: str, second: str) -> Literal["first", "second", "tie"]:
    """Say which text sounds more enthusiastic; "tie" where the scores are equal."""
    a, b = enthusiasm(first), enthusiasm(second)
    return "tie" if a == b else "first" if a > b else "second"


def _words(sentence: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(sentence)]


def _length(sentence: str) -> float:
    """Length in words, Chinese characters converted."""
    return len(_words(sentence)) + len(_CHINESE.findall(sentence)) / _CHARACTERS_A_WORD


def _stem(word: str) -> str | None:
    """The word of `POSITIVE` that this is a form of, if any."""
    if word in POSITIVE:
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix):
            root = word.removesuffix(suffix)
            for form in (root, root + "e", root + "y", root + "le"):
                if form in POSITIVE:
                    return form
    return None


def _positive(sentence: str) -> set[str]:
    english = {stem for word in _words(sentence) if (stem := _stem(word))}
    return english | set(POSITIVE_ZH.findall(sentence))


def _addresses(sentence: str) -> int:
    english = sum(word in ADDRESS for word in _words(sentence))
    return english + len(ADDRESS_ZH.findall(sentence))
