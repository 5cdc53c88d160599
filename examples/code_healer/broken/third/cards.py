"""Deal a shuffled pack to four players and name each one's best card."""

import random

RANKS = ["7", "8", "9", "10", "J", "Q", "K", "A"]
SUITS = "CDHS"


def pack(seed):
    cards = [rank + suit for suit in SUITS for rank in RANKS]
    random.Random(seed).shuffle(cards)
    return cards


def best(hand):
    return max(hand, key=lambda card: (RANKS.index(card[:-1]), card[-1]))


cards = pack(7)
hands = {f"player {n + 1}": cards[n::4] for n in range(4)}
for player, hand in hands.items():
    print(player + ": " + ", ".join(sorted(hand)) + "; best " + best(hand) + " of " + len(hand))
