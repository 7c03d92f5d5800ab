"""The little that the tests have to know about PromQL text and the Prometheus text format."""

import re

METRIC = re.compile(r"\b((?:sluice|process)_[a-z0-9_]+|up)\b(?!\s*[=!]~?\s*\")")
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def family_types(text):
    """The families of a scrape by name, with their types."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def samples(text):
    """The values of a scrape by series, labels included."""
    return {series: float(value)
            for series, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.MULTILINE)}


def without_strings(expression):
    """The expression with the contents of its quoted strings removed."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)


def series_names(expression):
    """The names of series that an expression selects, in order."""
    return METRIC.findall(without_strings(expression))


def family_of(series, types):
    """The family that a series belongs to, or None when there is none."""
    if series in types:
        return series
    for part in HISTOGRAM_PARTS:
        family = series.removesuffix(part)
        if family != series and types.get(family) == "histogram":
            return family
    return None


def rule_expressions(text):
    """The alerts of a rules file of ours, name to expression, without a YAML library."""
    alerts = {}
    for block in re.split(r"^\s*- alert: ", text, flags=re.MULTILINE)[1:]:
        name = block.split("\n", 1)[0].strip()
        match = re.search(r"^\s*expr:(.*?)^\s*(?:for|labels|annotations):", block,
                          re.MULTILINE | re.DOTALL)
        alerts[name] = match.group(1).strip().removeprefix("|").strip()
    return alerts
