// A text written for this program, so that two models can be compared without one at hand.
// SPDX-License-Identifier: MIT
#include "apps/eval_run.h"

namespace glm {

std::string sample_text() {
  return R"TEXT(The ferry left the harbour at a quarter past six, half empty, with its lamps still burning. On the upper deck a woman in a grey coat unfolded a map, looked at it for a while without turning it the right way up, and folded it again. "You have been here before," said the man beside her. It was not a question. "Once," she said, "when I was nine. My father wanted to see the lighthouse, and we saw the fog instead." They both laughed, and the fog, as if it had been called, came slowly over the water.

A lighthouse works by a simple idea. A lamp stands in the middle of a ring of lenses, each of them cut into steps, so that a thin piece of glass bends the light as much as a thick one would. The ring turns once in twenty seconds; four lenses give four beams, and a ship sees one flash every five seconds. Whoever counts the seconds knows which tower it is. The keeper's book lists the oil that was burned each night: 31 litres in June, 58 in December, 44.5 on average, or about 16,000 in a year.

Why is the sea salty? Rain takes a little salt out of the rocks, and rivers carry it down. The water goes up again as vapour, the salt does not. After a very long time the two sides balance: as much salt is buried in the mud as the rivers bring. One litre of sea water holds about 35 grams of it, and a bath tub of 200 litres would leave 7 kilograms in the bottom when it has dried up.

To make bread for two days you need 500 g of flour, 350 ml of water, 10 g of salt and very little yeast. Mix everything in the evening, cover the bowl and do nothing. In the morning fold the dough four times, let it rest for an hour, and put it into a hot oven (240 degrees) for 35 minutes. If it sounds hollow when you knock on it, it is done; if it does not, wait five minutes more.

```python
def mean(values):
    """The arithmetic mean of a list that is not empty."""
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)

for n in range(1, 6):
    print(n, n * n, mean([k for k in range(n + 1)]))
```

ANNA:
What news from the north, my lord? The bridge is down,
And none will tell us if the king still lives.

MARTIN:
He lives, but speaks to no one. Yesterday
He sent the doctor home, and all night long
We heard him walking on the castle wall.

Wer früh aufsteht, sieht den Nebel über dem Fluss. Le train de huit heures est parti sans nous. El perro duerme en la cocina. 今天的天气很好，我们去公园散步吧。 東京は日本の首都です。

Question: A train leaves at 14:35 and arrives at 17:10. How long does it take?
Answer: From 14:35 to 17:00 are 2 hours and 25 minutes, and 10 minutes more make 2 hours and 35 minutes.
)TEXT";
}

}  // namespace glm
