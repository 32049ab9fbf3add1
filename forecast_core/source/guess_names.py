"""What a column's name says it holds, in the words that retailers use.

Belongs here: the vocabulary, and names made comparable. Does not: what values say
(`forecast_core.source.guess_values`), or the guess as a whole (`forecast_core.source.guess`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_KEY = r"(_?(id|nbr|nr|no|num|number|nummer|code|key))?"
_CODE_OF = re.compile(
    r"^(id|code|cod|codigo|codice|num|numero|nr|no)_((de|du|del|di)_(la_)?)?(?=[a-z])"
)
# In order of preference: the first pattern that any column fits wins.
WORDS: Mapping[str, Sequence[str]] = {
    "date": (
        r"date|day|ds|dt|datum|fecha|jour|giorno|tag|data|dia",
        r"(sales?|order|transaction|invoice|posting|business|calendar|trans|buchungs|verkaufs)_?"
        r"(date|day|datum|tag)|date_?(id|key|time)|timestamp|sold_at|sold_on|time|period",
        r"(valid|effective|start|price)_?(from|on|date|since)|from_?date|gueltig_(ab|von)",
        r"(week|wk)(_?(id|no|nr|num|number|start|end|ending|commencing|date|of|begin|beginning))?|"
        r"kw|woche|kalenderwoche|semana|semaine|settimana|wm_yr_wk|yearweek|year_week|iso_?week",
    ),
    "units": (
        r"units?|units?_?(sold|sales)|sold_units|sales_units|(pieces|pcs)(_sold)?|sold_(pieces|pcs)",
        r"qty|quantity|(sales|sold|order|ordered|total|net)_(qty|quantity)|(qty|quantity)_"
        r"(sold|ordered)|units?_qty|qte|quantite_vendue|quantita_venduta|cantidad_vendida|verkaufsmenge|menge|absatz(menge)?|stueck(zahl)?|anzahl|cantidad|unidades|"
        r"quantite|quantita|aantal|antal|ilosc|unidades_vendidas",
        r"num_orders|orders|item_cnt(_day)?|demand|volume|log_?move|move|target|y|nachfrage",
        r"(weekly|daily|net|gross|total)?_?sales|sold|sales_(value|amount|usd|eur|gbp)|turnover|"
        r"revenue|(net_)?(amount|revenue)|umsatz|ventas|ventes|fatturato|importe|montant|omzet|value",
    ),
    "item_id": (
        rf"item{_KEY}|sku{_KEY}|product{_KEY}|article{_KEY}|artikel{_KEY}|material{_KEY}",
        rf"prod{_KEY}|prd{_KEY}|art{_KEY}|producto{_KEY}|articulo{_KEY}|produit{_KEY}|prodotto{_KEY}|meal{_KEY}|menu_item|plu",
        r"upc|ean|gtin|barcode|asin|unique_id|series_id|ts_id|codigo",
        rf"brand{_KEY}|item_name|product_name|product_description|artikelbezeichnung",
        rf"dept{_KEY}|department{_KEY}",
    ),
    "store_id": (
        rf"store{_KEY}|str{_KEY}|shop{_KEY}|cent(er|re){_KEY}|outlet{_KEY}|branch{_KEY}|filiale?{_KEY}",
        rf"location{_KEY}|loc{_KEY}|site{_KEY}|plant{_KEY}|warehouse{_KEY}|depot{_KEY}|"
        rf"tienda{_KEY}|sucursal{_KEY}|magasin{_KEY}|negozio{_KEY}|winkel{_KEY}|markt{_KEY}|butik",
        r"store_name|shop_name|outlet_name|channel",
    ),
    "sell_price": (
        r"sell_?price|selling_price|sales_?price|unit_?price|checkout_price|retail_price|"
        r"price(_per_unit|_eur|_usd|_gbp)?|list_price|preis|stueckpreis|vk_?preis|verkaufspreis|"
        r"precio(_unitario)?|prix(_unitaire)?|prezzo|prijs",
        r"(net|gross|avg|average|mean|actual|shelf|store|item|product|sku|regular)_price",
    ),
    "state_id": (
        rf"state{_KEY}|bundesland|provincia?|province",
        rf"region{_KEY}|region_name|area{_KEY}|district{_KEY}|zone{_KEY}|market{_KEY}|land",
        rf"country{_KEY}|city{_KEY}|town|ville|ciudad|stadt|store_?type|shop_type|type",
    ),
    "closed": (r"(is_)?closed|shut|geschlossen|ferme|cerrado",),
    "open": (r"(is_)?open|geoeffnet|ouvert|abierto",),
    "year": (r"(iso_?|fiscal_?|sales_?)?year|jahr|ano|annee|anno",),
    "week": (r"(iso_?|fiscal_?|sales_?)?(week|wk)(_?(no|nr|num|number|of_year))?|kw|woche|semana",),
}
HIERARCHY = re.compile(
    rf"(sub_?)?(dept|department|category|cat|class|family|group|segment){_KEY}(_name)?|division|"
    r"(product|item|merch\w*)_(group|category|type|class|family|line)|cuisine|warengruppe|"
    r"sortiment|abteilung|familia|(sub)?categoria|(sous_)?famille|categorie|rayon|reparto|brand"
)
KNOWN = re.compile(
    r"promo|feat|display|deal|markdown|holiday|discount|emailer|homepage|event|base_?price|school|"
    r"aktion|rabatt|ferien|feiertag|coupon|campaign|advert|flyer|oferta|festivo|ferie"
)
AFTER = re.compile(r"customer|profit|margin|transactions|visits|stock|inventory|cost|kunden")
MONEY = re.compile(r"sales$|sales_|revenue|turnover|amount|value|umsatz|ventas|ventes|omzet|import")
COUNTS = re.compile(r"unit|qty|quant|menge|piece|stueck|count|cnt|volume|num_")
LOGARITHM = re.compile(r"^log")


def plain(name: str) -> str:
    """Small letters, digits and `_`, without accents: `Item Code`, `ItemCode` -> item_code."""
    spelt = re.sub(
        "[Ää]", "ae", re.sub("[Öö]", "oe", re.sub("[Üü]", "ue", name.replace("ß", "ss")))
    )
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", spelt)
    letters = unicodedata.normalize("NFKD", split).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", letters).strip("_")


def covariate_name(name: str) -> str:
    """A name that a covariate may have."""
    found = plain(name)
    return found if found[:1].isalpha() else f"c_{found}"


def match(names: Iterable[str], what: str) -> str | None:
    """The column whose name says best that it is `what`."""
    ranked = [(rank, at, name) for at, name in enumerate(names) if (rank := fit(name, what)) >= 0]
    return min(ranked)[2] if ranked else None


def fit(name: str, what: str) -> int:
    """How well a name fits `what`: 0 is best, -1 is not at all."""
    said = plain(name)
    if what in ("item_id", "store_id"):
        said = _CODE_OF.sub("", said)
    for rank, pattern in enumerate(WORDS[what]):
        if re.fullmatch(pattern, said):
            return rank
    return -1
