"""The workload of a load test for JMeter, k6 and Locust."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from mlship.domain import api_keys
from mlship.domain.load import LoadPlan

_USERS: Final = 100
"""How many names of users there are; a load balancer may take numbers from 0 to 99 only."""


def render(tool: str, plan: LoadPlan, path: Path) -> Mapping[Path, str]:
    """Return the files that a tool needs to send a plan, by path.

    Args:
        tool: jmeter, k6 or locust.
        plan: what is sent.
        path: of the file that the tool is given.
    """
    renderers: dict[str, Callable[[LoadPlan, Path], dict[Path, str]]] = {
        "jmeter": _jmeter,
        "k6": _k6,
        "locust": _locust,
    }
    return renderers[tool](plan, path)


_K6: Final = Template("""\
// Written by `mlship loadtest`. To send it: k6 run $file
import http from 'k6/http';

export const options = {
  scenarios: {
    predict: {
      executor: 'constant-arrival-rate',
      rate: $rate,
      timeUnit: '1m',
      duration: '${seconds}s',
      preAllocatedVUs: $users,
      maxVUs: $users,
    },
  },
  thresholds: { http_req_failed: ['rate==0'] },
};

const bodies = $bodies;
const headers = { 'content-type': 'application/json' };
if (__ENV.$key) {
  headers.authorization = `Bearer $${__ENV.$key}`;
}

export default function () {$header
  http.post($url, bodies[__ITER % bodies.length], { headers, timeout: '${timeout}s' });
}
""")


def _k6(plan: LoadPlan, path: Path) -> dict[Path, str]:
    name = json.dumps(plan.user_header)
    header = f"\n  headers[{name}] = String(__VU % {_USERS});" if plan.user_header else ""
    text = _K6.substitute(
        file=path.name,
        rate=max(1, round(plan.rate * 60)),
        seconds=f"{plan.seconds:g}",
        users=plan.users,
        bodies=json.dumps(plan.bodies, indent=2),
        header=header,
        key=api_keys.KEY,
        url=json.dumps(plan.url),
        timeout=f"{plan.timeout:g}",
    )
    return {path: text}


_LOCUST: Final = Template('''\
"""Written by `mlship loadtest`. To send it:

    locust --headless --users $users --spawn-rate $users --run-time ${seconds}s -f $file

Locust is a closed loop: a user who waits for a response sends nothing. So the rate falls when the
target is slow, and latencies do not include the time that other requests would have waited.
"""

import itertools
import os

from locust import FastHttpUser, constant_throughput, task

BODIES = $bodies
NAMES = itertools.cycle(str(number) for number in range($names))


class Caller(FastHttpUser):
    host = $host
    wait_time = constant_throughput($each)
    network_timeout = connection_timeout = $timeout

    def on_start(self):
        self.bodies = itertools.cycle(BODIES)
        self.headers = {"content-type": "application/json"$header}
        if key := os.environ.get("$key"):
            self.headers["authorization"] = f"Bearer {key}"

    @task
    def predict(self):
        self.client.post($path, data=next(self.bodies), headers=self.headers)
''')


def _locust(plan: LoadPlan, path: Path) -> dict[Path, str]:
    url = urlsplit(plan.url)
    text = _LOCUST.substitute(
        file=path.name,
        users=plan.users,
        seconds=f"{plan.seconds:g}",
        bodies="[\n" + "".join(f"    {body!r},\n" for body in plan.bodies) + "]",
        names=_USERS,
        host=repr(f"{url.scheme}://{url.netloc}"),
        each=repr(plan.rate / plan.users),
        timeout=repr(plan.timeout),
        header=f", {plan.user_header!r}: next(NAMES)" if plan.user_header else "",
        path=repr(url.path),
        key=api_keys.KEY,
    )
    return {path: text}


def _jmeter(plan: LoadPlan, path: Path) -> dict[Path, str]:
    """Return a plan with an open model (JMeter 5.5 or later), and its requests in another file."""
    requests = path.with_suffix(".requests")
    root = Element("jmeterTestPlan", version="1.2", properties="5.0", jmeter="5.6.3")
    top = SubElement(root, "hashTree")
    _element(top, "TestPlan", "TestPlanGui", "mlship loadtest")
    inside = SubElement(top, "hashTree")
    schedule = f"rate({plan.rate!r}/s) even_arrivals({plan.seconds!r} s)"
    group = _element(inside, "OpenModelThreadGroup", "OpenModelThreadGroupGui", "requests")
    controller = {"name": "ThreadGroup.main_controller"}
    SubElement(group, "elementProp", controller, elementType="OpenModelThreadGroupController")
    _strings(
        group,
        {
            "ThreadGroup.on_sample_error": "continue",
            "OpenModelThreadGroup.schedule": schedule,
            "OpenModelThreadGroup.random_seed": "",
        },
    )
    members = SubElement(inside, "hashTree")
    _jmeter_rows(members, requests.name)
    _jmeter_headers(members, plan)
    _jmeter_sampler(members, plan)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
    return {path: text, requests: "".join(f"{body}\n" for body in plan.bodies)}


def _jmeter_rows(members: Element, name: str) -> None:
    """Add the file with a request a line."""
    rows = _element(members, "CSVDataSet", "TestBeanGUI", "bodies")
    strings = {
        "filename": name,
        "fileEncoding": "UTF-8",
        "variableNames": "body",
        "delimiter": "\\t",
        "shareMode": "shareMode.all",
    }
    _strings(rows, strings)
    booleans = {"ignoreFirstLine": "false", "quotedData": "false"}
    for key, value in {**booleans, "recycle": "true", "stopThread": "false"}.items():
        SubElement(rows, "boolProp", name=key).text = value
    SubElement(members, "hashTree")


def _jmeter_headers(members: Element, plan: LoadPlan) -> None:
    headers = _element(members, "HeaderManager", "HeaderPanel", "headers")
    key = f"${{__P({api_keys.KEY},none)}}"
    values = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    if plan.user_header:
        values[plan.user_header] = f"${{__Random(0,{_USERS - 1})}}"
    entries = SubElement(headers, "collectionProp", name="HeaderManager.headers")
    for key, value in values.items():
        entry = SubElement(entries, "elementProp", name=key, elementType="Header")
        _strings(entry, {"Header.name": key, "Header.value": value})
    SubElement(members, "hashTree")


def _jmeter_sampler(members: Element, plan: LoadPlan) -> None:
    url = urlsplit(plan.url)
    timeout = str(round(1000 * plan.timeout))
    sampler = _element(members, "HTTPSamplerProxy", "HttpTestSampleGui", "predict")
    _strings(
        sampler,
        {
            "HTTPSampler.protocol": url.scheme,
            "HTTPSampler.domain": url.hostname or "",
            "HTTPSampler.port": str(url.port or ""),
            "HTTPSampler.path": url.path,
            "HTTPSampler.method": "POST",
            "HTTPSampler.contentEncoding": "UTF-8",
            "HTTPSampler.connect_timeout": timeout,
            "HTTPSampler.response_timeout": timeout,
        },
    )
    for key in ("HTTPSampler.use_keepalive", "HTTPSampler.postBodyRaw"):
        SubElement(sampler, "boolProp", name=key).text = "true"
    arguments = {"name": "HTTPsampler.Arguments", "elementType": "Arguments"}
    collection = SubElement(
        SubElement(sampler, "elementProp", arguments), "collectionProp", name="Arguments.arguments"
    )
    body = SubElement(collection, "elementProp", name="", elementType="HTTPArgument")
    SubElement(body, "boolProp", name="HTTPArgument.always_encode").text = "false"
    _strings(body, {"Argument.value": "${body}", "Argument.metadata": "="})
    SubElement(members, "hashTree")


def _element(parent: Element, kind: str, gui: str, name: str) -> Element:
    about = {"guiclass": gui, "testclass": kind, "testname": name, "enabled": "true"}
    return SubElement(parent, kind, about)


def _strings(parent: Element, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        SubElement(parent, "stringProp", name=key).text = value
