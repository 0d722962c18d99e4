"""Writes snippets.json: Jinja snippets beside what Jinja2 prints with the settings of transformers.

    python tests/jinja/make_snippets.py        needs transformers and jinja2

Each snippet is rendered with the variables below. A snippet that Jinja2 refuses has no text: the
test then expects a refusal, too.
"""

import json
import os

from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "messages": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "What's 1 < 2?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "image"}, {"type": "text", "text": " now?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [True, None, 2.5]}}}]},
        {"role": "tool", "tool_call_id": "call_1", "name": "add", "content": "{\"sum\": 3}"},
    ],
    "tools": [{"type": "function", "function": {"name": "add", "description": "Adds \"numbers\" <fast> ünïcode 日本 🦙", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"], "enum": ["x", "y"]}}, "required": ["a"]}}}],
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "n": 7,
    "f": 2.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "words": ["pear", "Apple", "fig", "apple"],
    "empty": [],
    "map": {"b": 1, "a": [1, 2], "items": "mine", "C": {"x": "y"}},
    "people": [{"name": "Ann", "age": 30}, {"name": "bob", "age": 25}, {"name": "Cid", "age": 30, "city": {"zip": [9, 8]}}],
    "text": "Hello, wörld! 🦙",
}

SNIPPETS = r"""
{{ none }}{{ true }}{{ false }}{{ None }}{{ True }}{{ nothing }}
{{ [1, 'a', "it's", none, true, 2.0, [], {}, (1,), (), (1, 'b')] }}
{{ {'k': 'v', 'n': none, 1: 2.5, 'l': ['x', {'y': false}]} }}
{{ map }}
{{ 'a b  c'.split() }}{{ 'a b  c'.split(' ') }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}
{{ 'a\nb\r\nc\n'.splitlines() }}{{ 'a\nb'.splitlines(true) }}
{{ 'a' 'b' "c" }}
{{ '%s-%d' % ('a', 3) }}{{ '%s' % 'x' }}{{ '%05.1f|%-4s|%4s|%x|%%' % (2.25, 'a', 'b', 255) }}
{{ '%(name)s is %(age)d' % people[0] }}
{{ '%s' % [1, none] }}
{{ '{} {1}'.format(1) }}
{{ '{} and {}'.format('a', 2) }}{{ '{0}{1}{0}'.format('x', 'y') }}{{ '{n:>5}|{f:.2f}|{s!r}'.format(n=3, f=1.005, s='q') }}
{{ '{:,}'.format(1234567) }}{{ '{:08.3f}'.format(3.14159) }}{{ '{:<6}|{:^6}|{:>6}'.format('a', 'b', 'c') }}{{ '{:+d} {:x} {:#b} {:e}'.format(5, 255, 5, 12345.678) }}
{{ 'prefix_x'.removeprefix('prefix_') }}{{ 'x.txt'.removesuffix('.txt') }}{{ 'abc'.removeprefix('b') }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\n a\n'.strip('\n') }}
{{ 'abc'.startswith('a') }}{{ 'abc'.startswith(('x', 'ab')) }}{{ 'abc'.endswith('bc') }}{{ 'abc'.startswith('b', 1) }}
{{ 'a-b-c'.replace('-', '+') }}{{ 'a-b-c'.replace('-', '+', 1) }}{{ 'abc'.replace('', '.') }}
{{ text.upper() }}{{ text.lower() }}{{ text.title() }}{{ text.capitalize() }}{{ text.swapcase() }}
{{ text|length }}{{ text[0] }}{{ text[-1] }}{{ text[7:12] }}{{ text[::-1] }}{{ text[::3] }}{{ text[100:] }}
{{ text.find('w') }}{{ text.find('zz') }}{{ text.rfind('l') }}{{ text.index('ö') }}{{ text.count('l') }}
{{ text.index('zz') }}
{{ 'a'.center(6, '*') }}{{ 'ab'.center(5) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ '-7'.zfill(4) }}
{{ 'abc'.isalpha() }}{{ '12'.isdigit() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'AB'.isupper() }}{{ 'ab1'.islower() }}{{ ''.isalpha() }}{{ 'A Title'.istitle() }}
{{ 'k=v=w'.partition('=') }}{{ 'k=v=w'.rpartition('=') }}{{ 'kv'.partition('=') }}
{{ ', '.join(words) }}{{ ''.join(['a', 'b']) }}
{{ ', '.join([1, 2]) }}
{{ 'a\tb'.expandtabs(4) }}|{{ 'straße'.casefold() }}
{{ 'tab\there' }}{{ "quote\"d" }}{{ '\x41\u00e9\101' }}{{ 'back\\slash' }}{{ '\q' }}
{{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 1_000 + 0x1F + 0b11 + 0o7 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 10 / 3 }} {{ 1e16 }} {{ 0.1 + 0.2 }} {{ 1e22 }} {{ 100000.0 }}
{{ 'a' * 3 }}{{ [1] * 2 }}{{ 2 * 'ab' }}{{ 'a' * -1 }}{{ true + true }}{{ [1] + [2, 3] }}{{ (1,) + (2,) }}
{{ 'a' + 1 }}
{{ 1 + none }}
{{ 'a' ~ 1 ~ none ~ true ~ [1] ~ 1.0 }}
{{ 1 if yes else 2 }}{{ 1 if no }}{{ 'a' if no else 'b' if no else 'c' }}
{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' == 'a' }}{{ [1, 2] == [1, 2.0] }}{{ (1,) == [1] }}{{ none == false }}{{ {'a': 1} == {'a': 1} }}
{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}{{ 'B' < 'a' }}{{ 2 >= 2.0 }}
{{ 'a' < 1 }}
{{ 'ell' in text }}{{ 1 in [1, 2] }}{{ 'a' in map }}{{ 'z' not in map }}{{ 'x' in empty }}{{ 3 in range(5) }}{{ none in [none] }}
{{ 1 in 'a' }}
{{ yes and 'x' }}{{ no or 'y' }}{{ not yes }}{{ not empty }}{{ no and 'x' }}{{ nothing or empty or 'last' }}{{ '' and 1 }}
{{ undefined_name }}|{{ undefined_name is defined }}|{{ undefined_name|default('d') }}|{{ undefined_name == other_undefined }}|{{ undefined_name|length }}|{{ undefined_name ~ 'x' }}
{{ undefined_name.attribute }}
{{ undefined_name['x'] }}
{{ undefined_name + 1 }}
{{ undefined_name() }}
{{ map.missing }}|{{ map['missing'] }}|{{ map.missing is defined }}|{{ map.C.x }}|{{ map['C']['x'] }}|{{ words[99] }}|{{ words.0 }}
{{ map.missing.deeper }}
{{ messages[0].content.text }}|{{ messages[4].content is none }}|{{ messages[0].tool_calls is defined }}|{{ messages[4].tool_calls is not none }}
{{ map.items() }}{{ map.keys() }}{{ map.values() }}
{{ map['items'] }}|{{ map.get('b') }}|{{ map.get('zz') }}|{{ map.get('zz', 5) }}
{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in map|items %}{{ k }}={{ v }};{% endfor %}{% for k, v in map|dictsort %}{{ k }}{% endfor %}{{ map|dictsort(case_sensitive=true, by='key', reverse=true) }}
{% for k in map %}{{ k }}{{ loop.index }}{% endfor %}{% for c in 'añ🦙' %}[{{ c }}]{% endfor %}{% for i in range(3, 9, 2) %}{{ i }}{% endfor %}
{% for x in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }}{{ loop.changed(x|length) }};{% endfor %}
{% for x in [1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}
{% for x in empty %}x{% else %}none at all{% endfor %}
{% for x in [1, 2, 3, 4] if x is even %}{{ x }}{{ loop.length }}{{ loop.last }}{% endfor %}
{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}{% for (a, (b, c)) in [(1, (2, 3))] %}{{ a + b + c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in undefined_name %}{% endfor %}fine
{% for item in [{'v': 1, 'c': [{'v': 2, 'c': [{'v': 3}]}]}, {'v': 4}] recursive %}{{ loop.depth }}:{{ item.v }}{% if item.c %}({{ loop(item.c) }}){% endif %}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, found=false) %}{% for i in [1, 2] %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}{{ ns.found }}{{ ns.missing is defined }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}{% set ns.c = ns.a %}{{ ns.c }}
{% set map.b = 3 %}
{% if yes %}{% set x = 'set' %}{% endif %}{{ x }}{% if no %}{% set y = 1 %}{% endif %}{{ y is defined }}
{% set a, b = 1, 2 %}{{ a + b }}{% set c = 1, 2 %}{{ c }}
{% set block %}  {{ 'x' }} y {% endset %}[{{ block }}]{% set up | upper | trim %} abc {% endset %}{{ up }}
{% with a = 1, b = n %}{{ a + b }}{% set inner = 5 %}{% endwith %}{{ a is defined }}{{ inner is defined }}
{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, 3) }}|{{ f(1, c=9) }}|{{ f(b=1, a=0) }}|{{ f() }}
{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, k=4) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=1) }}
{% macro outer(x) %}[{{ caller(x) }}]{% endmacro %}{% call(v) outer(3) %}v={{ v }} n={{ n }}{% endcall %}
{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{{ f.name }}
{% macro f() %}{{ later }}{% endmacro %}{% set later = 'late' %}{{ f() }}
{% macro f() %}a{% endmacro %}{{ f()|upper }}{{ f() ~ 'b' }}{{ f() == 'a' }}{{ f()|length }}
{% filter upper %}abc {{ n }}{% endfilter %}{% filter replace('a', 'b')|trim %} aa {% endfilter %}
{% raw %}{{ x }}{% if %}{% endraw %}|{%- raw -%}  {# kept #}  {%- endraw -%}  |
{# comment #}a{#- strip -#}  b
  {% if yes %}
    kept
  {% endif %}
end
{%- if yes -%}   tight   {%- endif -%}   .
  {%+ if yes %}plus{% endif +%}

after
a {{- ' b ' -}} c
{% if yes %}

two newlines{% endif %}
{{ words|join(', ') }}{{ words|join }}{{ [1, none, 'a']|join('-') }}{{ people|join(',', attribute='name') }}{{ 'abc'|join('.') }}
{{ words|first }}{{ words|last }}{{ words|length }}{{ words|count }}{{ empty|first }}{{ 'abc'|first }}{{ 'abc'|last }}
{{ words|sort }}{{ words|sort(reverse=true) }}{{ words|sort(case_sensitive=true) }}{{ people|sort(attribute='age')|map(attribute='name')|list }}{{ people|sort(attribute='age,name', reverse=true)|map(attribute='name')|join }}
{{ [3, 1, 2]|sort }}{{ [3, 1]|min }}{{ words|max }}{{ [1, 2.5]|sum }}{{ people|sum(attribute='age') }}{{ empty|sum }}{{ people|max(attribute='age') }}
{{ [1, 'a']|sort }}
{{ words|unique|list }}{{ [1, 1.0, true, 2]|unique|list }}{{ words|reverse|list }}{{ 'abc'|reverse }}{{ words[::-1] }}
{{ words|map('upper')|list }}{{ people|map(attribute='city.zip.0')|list }}{{ people|map(attribute='city', default='-')|list }}{{ ['1', '2']|map('int')|sum }}{{ words|map('replace', 'a', 'A')|join(' ') }}
{{ people|selectattr('age', 'equalto', 30)|map(attribute='name')|list }}{{ people|rejectattr('age', '==', 30)|list|length }}{{ people|selectattr('city')|list|length }}{{ people|selectattr('city', 'defined')|list|length }}{{ people|selectattr('age', '>', 26)|list|length }}{{ people|selectattr('name', 'in', ['Ann'])|list }}
{{ [0, 1, '', 'a', none]|select|list }}{{ [1, 2, 3]|select('odd')|list }}{{ [1, 2, 3]|reject('odd')|list }}{{ [1, 'a', 2]|select('string')|list }}{{ [3, 9]|select('>', 5)|list }}
{% for age, group in people|groupby('age') %}{{ age }}:{{ group|map(attribute='name')|join(',') }};{% endfor %}
{{ [1, 2, 3, 4, 5]|batch(2)|list }}{{ [1, 2, 3]|batch(2, 'x')|list }}{{ [1, 2, 3, 4, 5]|slice(2)|list }}{{ [1, 2, 3, 4, 5]|slice(3, 'f')|list }}
{{ none|map('upper')|list }}{{ none|selectattr('a')|list }}{{ nothing|reject|list }}
{{ none|list }}
{{ none|join }}
{% if empty|select %}generators are true{% endif %}{{ (messages|selectattr('role', 'equalto', 'system')|list)|length }}
{{ messages|selectattr('role', 'equalto', 'x')|length }}
{{ 'x'|default('d') }}{{ ''|default('d') }}{{ ''|default('d', true) }}{{ none|default('d') }}{{ none|d('d', boolean=true) }}{{ map.zz|default(map.b) }}{{ map.zz|default }}
{{ '  a '|trim }}|{{ 'xax'|trim('x') }}|{{ 'a b'|title }}|{{ "it's a-b c"|title }}|{{ 'aBC'|capitalize }}|{{ 'ab'|center(6) }}|{{ 5|string ~ 1 }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb\n\nc\n'|indent(2, true, true) }}|{{ 'a\nb'|indent(width='> ', first=true) }}
{{ 'abc def ghi'|truncate(8) }}|{{ 'abc def ghi'|truncate(8, true, '…', 0) }}|{{ 'abc'|truncate(3) }}|{{ 'one two three'|wordcount }}
{{ 'the quick brown fox jumps'|wordwrap(10) }}|{{ 'abcdefghijkl mn'|wordwrap(5) }}|{{ 'well-known state-of-the-art'|wordwrap(9) }}
{{ 'a'|replace('a', 'b') }}{{ 'aaa'|replace('a', 'b', 2) }}{{ 12|replace(1, 3) }}{{ 'x'|upper }}{{ 'X'|lower }}{{ '%s=%s'|format('a', 1) }}{{ '%(k)s'|format(k=2) }}
{{ '42'|int }}{{ 'x'|int }}{{ 'x'|int(5) }}{{ '3.9'|int }}{{ 3.9|int }}{{ '0x1F'|int(0, 16) }}{{ '2.5'|float }}{{ 'x'|float }}{{ 3|float }}{{ true|int }}{{ none|int }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }} {{ 7|round }} {{ -3|abs }} {{ -2.5|abs }} {{ 42.55|round(1) }}
{{ '<a href="x">\'&</a>'|e }}{{ '<b>'|safe }}{{ 'a b/ü?'|urlencode }}
{{ '<b>'|safe + '<i>' }}{{ '<i>' + '&'|e }}{{ '<i>' ~ '<b>'|safe }}{{ ('<'|e)|e }}{{ ('<'|e)|forceescape }}{{ ('<b>'|safe)|length }}{{ 5|safe + '<' }}
{{ tools|tojson }}
{{ tools[0]|tojson(indent=4) }}
{{ tools[0].function.description|tojson(ensure_ascii=True) }}{{ 'é'|tojson(ensure_ascii=False) }}
{{ {'b': 1, 'a': [1, 2, {'d': none, 'c': true}]}|tojson(separators=(',', ':')) }}{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}
{{ {'b': [], 'a': {}, 'c': [1], 1: 2, none: 3}|tojson(indent=2) }}
{{ [1.0, 1e20, 1e-7, 0.1, -0.0, 100]|tojson }}{{ "a\u0007\"\\/\n\t\x7f"|tojson }}{{ 'x'|tojson }}{{ none|tojson }}{{ (1, 2)|tojson }}
{{ {'a': [1, {'b': 2}]}|tojson(indent=none) }}{{ [1, [2]]|tojson(indent='\t') }}{{ [1]|tojson(indent=0) }}
{{ undefined_name|tojson }}
{{ words|map('upper')|tojson }}
{{ map|length }}{{ map|list }}{{ map|first }}{{ map|join('-') }}{{ 'abc'|list }}{{ range(3)|list }}{{ range(3) }}{{ range(5)[1:3] }}{{ range(5)[-1] }}
{{ range(200000)|length }}
{{ words[1:] }}{{ words[:-1] }}{{ words[::2] }}{{ words[3:0:-1] }}{{ words[-2:] }}{{ words[5:] }}{{ messages[1:]|length }}{{ (1, 2, 3)[1:] }}{{ words[none:2] }}{{ words[:9:-1] }}
{{ 1 is number }}{{ 1.0 is integer }}{{ true is integer }}{{ true is boolean }}{{ true is number }}{{ 1.0 is float }}{{ 'a' is string }}{{ none is none }}{{ 1 is true }}{{ true is true }}{{ no is false }}
{{ 'a' is sequence }}{{ empty is sequence }}{{ map is sequence }}{{ 1 is sequence }}{{ map is mapping }}{{ empty is mapping }}{{ 'a' is iterable }}{{ 5 is iterable }}{{ range(2) is sequence }}{{ undefined_name is iterable }}{{ map.items() is sequence }}
{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 'a' is in 'abc' }}{{ 1 is not in [2] }}{{ 'ab' is lower }}{{ 'AB' is upper }}{{ 1 is eq 1 }}{{ 2 is gt 1 }}{{ 1 is sameas 1 }}{{ none is sameas none }}{{ 1 is ne 2 }}{{ 3 is le(2) }}
{{ range is callable }}{{ 'a' is callable }}{{ n is defined and n is not none }}{{ n is undefined }}{{ not n is defined }}{{ 'x' if n is not defined else 'y' }}
{{ n is nosuchtest }}
{{ n|nosuchfilter }}
{% if n is string %}s{% elif n is mapping %}m{% elif n is number %}n{% else %}e{% endif %}
{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict(map, b=5).b }}{{ {'a': 1, 'a': 2} }}{{ {1: 'i', 1.0: 'f', true: 't'} }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set j = joiner('|') %}{{ j() }}x{{ j() }}y{{ j() }}
{{ raise_exception('Conversation roles must alternate') }}
{{ words.append('x') }}
{{ map.update({'x': 1}) }}{{ map.pop('b') }}
{{ words.index('fig') }}{{ words.count('fig') }}{{ words.copy() }}{{ (1, 2, 1).count(1) }}
{{ ''.__class__ }}|{{ words.__len__ }}
{{ ''.__class__.__mro__ }}
{{ -n }}{{ +n }}{{ - 3|abs }}{{ -words|length if no else 1 }}
{{ (n, f) }}{{ n, f }}{{ (n) }}{{ () }}
{{ [n, f,] }}{{ {'a': n,} }}{{ [[1, 2], [3]][0][1] }}{{ [1,2,3][-1] }}
{{ 'a'.upper().lower()|upper|lower ~ 'b'.upper() }}{{ ' a '.strip().split('b')[0] }}{{ words[0][0]|upper }}
{%- for message in messages %}{%- if message.role == 'user' and message.content is string %}{{- '<|user|>\n' + message['content'] | trim + eos_token }}{%- endif %}{%- endfor %}
{{ '<|im_start|>' + messages[0].role + '\n' + messages[0].content|trim + '<|im_end|>' + '\n' }}
{%- for m in messages if m.role != 'system' -%}{{ loop.index0 }}{{ m.role[0] }}{%- if not loop.last %},{% endif -%}{%- endfor %}
{% set content = messages[2].content %}{% if '</think>' in content %}{{ content.split('</think>')[-1].lstrip('\n') }}|{{ content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}{% endif %}
{% for part in messages[3].content %}{% if part.type == 'text' %}{{ part.text }}{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}
{% for tc in messages[4].tool_calls %}{% set fn = tc.function %}{"name": "{{ fn.name }}", "arguments": {{ fn.arguments|tojson }}}{{ ', ' if not loop.last }}{% endfor %}{{ messages[4].tool_calls[0].function.arguments }}
{% for k, v in messages[4].tool_calls[0].function.arguments.items() %}<parameter={{ k }}>{{ v if v is string else v|tojson }}</parameter>{% endfor %}
{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{{ index }}{{ m.role }} {% endfor %}
{% set ns = namespace(is_first=true, system='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% if ns.is_first %}{% set ns.system = ns.system + m['content'] %}{% set ns.is_first = false %}{% else %}{% set ns.system = ns.system + '\n\n' + m['content'] %}{% endif %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}{{ (m['role'] == 'user') == (loop.index0 % 2 == 0) }}{% endfor %}
{%- if tools is iterable and (tools | length) > 0 %}{% for tool in tools %}{{ tool | tojson(indent=4) }}{{ "\n\n" }}{% endfor %}{% endif %}
{%- macro render_type(t) -%}{%- if t is mapping -%}{{ t.type if t.type is string else t.type|join(' | ') }}{%- elif t is string -%}{{ t }}{%- endif -%}{%- endmacro -%}{% for name, p in tools[0].function.parameters.properties.items() %}{{ name }}: {{ render_type(p) }}{{ '?' if name not in tools[0].function.parameters.required }}, {% endfor %}
{%- set date_string = strftime_now("%Y") if strftime_now is defined and no else "26 Jul 2024" %}{{ "Today Date: " + date_string + "\n\n" }}
{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}{% if not tools_in_user_message is defined %}{% set tools_in_user_message = true %}{% endif %}{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools is none }}{{ tools_in_user_message }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{ enable_thinking|default(true) }}
{{ messages|length }}{{ messages[-1].role }}{{ messages[-1]['content'] }}{{ messages[messages|length - 2].role }}{{ messages[0]["content"][:4] }}
{%- generation -%}inside {{ n }}{%- endgeneration -%}{% set v = 1 %}{% generation %}{% set v = 2 %}{% endgeneration %}{{ v }}
{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}
{% unknowntag %}
{{ 1 +
{% if yes %}
{% endfor %}
{{ 'unclosed }}
{{ a b }}
{% set x %}
{% for x in %}{% endfor %}
{{ [1, 2 }}
{% block b %}in {{ n }}{% endblock %}|{% print n %}
{{ loop is defined }}{% for x in [1] %}{% for y in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% set n = n + 1 %}{{ n }}{% if true %}{% set n = n + 1 %}{% endif %}{{ n }}
{% for i in range(2) %}{% if i == 0 %}{% set seen = 'yes' %}{% endif %}{{ seen is defined }}{% endfor %}
{% set items = [1] %}{% for i in items %}{% set items = items + [i] %}{% endfor %}{{ items }}
{{ {'a': {'b': [10, 20]}}.a.b.1 }}{{ {'a': 1}['a'] }}{{ {'a': 1}.a }}{{ 'abc'['1'] }}{{ [1, 2]['x'] }}
{{ 12345678901234567890 * 3 }}{{ 2 ** 100 }}{{ 9007199254740993 }}{{ 1.0 * 9007199254740993 }}
{{ 1 / 0 }}
{{ 5 % 0 }}
{{ 'a'|length > 0 and 'b' ~ 'c' == 'bc' }}{{ 1 + 1 ~ 2 }}{{ 'x' ~ 2 * 3 }}{{ not 1 == 2 }}{{ 1 in [1] and 2 not in [1] }}
{{ "{{ not a tag }}" }}{{ '{%' }}{{ "}}" }}{{ {'a': {'b': 1}}['a']['b'] }}
{{ 'line1
line2' }}
{{ caller is defined }}{{ varargs is defined }}{{ namespace is defined }}{{ raise_exception is defined }}
{{ [1, 2]|first + 1 }}{{ words|map('length')|sum }}{{ (words|map('length')|list)[0] }}{{ words | map('first') | join }}
{{ 3.0 }}{{ 3.0|int }}{{ 1e100 }}{{ 123456789.123456789 }}{{ 5e-324 }}{{ 0.1 }}{{ 1/3 }}{{ 2e0 }}{{ 1.0e5|int }}
"""


def snippets():
    """One snippet a line; a line that starts in white space, or ends within a quote, goes on."""
    lines = SNIPPETS.strip("\n").split("\n")
    several = {
        "  {% if yes %}": 4,
        "  {%+ if yes %}plus{% endif +%}": 3,
        "{% if yes %}": 3,
        "{{ 'line1": 2,
    }
    i = 0
    while i < len(lines):
        n = several.get(lines[i], 1)
        if lines[i] == "{% if yes %}" and lines[i + 1] != "":
            n = 1
        yield "\n".join(lines[i:i + n])
        i += n


def main():
    cases = []
    for source in snippets():
        case = {"template": source}
        try:
            case["text"] = _compile_jinja_template(source).render(**VARIABLES)
        except Exception as e:
            case["error"] = f"{type(e).__name__}: {e}".split("\n")[0]
        cases.append(case)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "snippets.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"variables": ' + json.dumps(VARIABLES, ensure_ascii=False) + ',\n"snippets": [\n')
        file.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]}\n")
    print(len(cases), "snippets,", sum("error" in case for case in cases), "refused")


if __name__ == "__main__":
    main()
