"""A strict reader of Prometheus' text format 0.0.4, as far as a server needs it: no timestamps, no summaries."""

import re

TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?")


class Metrics:
    """types: {family: type}; samples: {(name, ((label, value), ...)): number}, labels sorted."""

    def __init__(self, text):
        assert text.endswith("\n") and "\r" not in text
        self.types, self.samples = {}, {}
        helped, family = set(), None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                name, _, words = line[len("# HELP "):].partition(" ")
                assert re.fullmatch(NAME, name) and words and name not in helped, line
                helped.add(name)
                family = name
            elif line.startswith("# TYPE "):
                name, _, kind = line[len("# TYPE "):].partition(" ")
                assert name == family and name not in self.types, line
                assert kind in ("counter", "gauge", "histogram"), line
                assert (kind == "counter") == name.endswith("_total"), line
                self.types[name] = kind
            else:
                self._take(line, family)
        assert helped == set(self.types)
        for name, kind in self.types.items():
            assert name.startswith("unetserve_"), name
            assert self._of(name), f"{name} has no sample"
            if kind == "histogram":
                self._check_histogram(name)

    def _take(self, line, family):
        match = SAMPLE.fullmatch(line)
        assert match, f"not a sample: {line!r}"
        suffixes = ("_bucket", "_sum", "_count") if self.types.get(family) == "histogram" else ("",)
        assert match[1] in [family + suffix for suffix in suffixes], f"{line!r} in family {family}"
        assert NUMBER.fullmatch(match[7]), f"not a number: {line!r}"
        labels = re.findall(LABEL, match[2] or "")
        assert len(dict(labels)) == len(labels), f"a label twice: {line!r}"
        key = (match[1], tuple(sorted(labels)))
        assert key not in self.samples, f"twice: {line!r}"
        self.samples[key] = float(match[7])

    def _of(self, family):
        names = [family + suffix for suffix in ("", "_bucket", "_sum", "_count")]
        return {key: value for key, value in self.samples.items() if key[0] in names}

    def _check_histogram(self, name):
        series = {tuple(label for label in labels if label[0] != "le") for _, labels in self._of(name)}
        for labels in series:
            bounds, counts = [], []
            for (sample, own), value in self.samples.items():
                own = dict(own)
                if sample == name + "_bucket" and tuple(sorted(set(own.items()) - {("le", own["le"])})) == labels:
                    bounds.append(float(own["le"]))
                    counts.append(value)
            assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), (name, bounds)
            assert counts == sorted(counts), (name, counts)
            assert self.samples[(name + "_count", labels)] == counts[-1]
            total = self.samples[(name + "_sum", labels)]
            assert (total > 0) == (counts[-1] > 0) or total == 0, (name, total)

    def value(self, name, **labels):
        return self.samples[("unetserve_" + name, tuple(sorted(labels.items())))]

    def sum(self, name, **labels):
        """Over all series that have these labels."""
        return sum(value for (sample, own), value in self.samples.items()
                   if sample == "unetserve_" + name and set(labels.items()) <= set(own))

    def growing(self):
        """Everything that may never fall."""
        return {key: value for key, value in self.samples.items()
                for family, kind in self.types.items()
                if (kind == "counter" and key[0] == family)
                or (kind == "histogram" and key in self._of(family))}
