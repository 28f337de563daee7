"""The English in which sentences refuse, doubt, bound, deny, take back and put conditions: patterns for other modules.

Each pattern is a class of wordings; which of them decides, and in what order, is said where they are used.
"""

import re


# What a sentence behind the answer starts with, when it says nothing of its own.
ASIDE = re.compile(
    r"\W*(?:(?:check|checking|verif\w+|verification|note|remember|indeed|hope|substituting|plugging|source|remark)\b"
    r"|(?:to|let's|let us|we can|you can|please|as a|double)[ -](?:check|verify|note|double-check|confirm|see)\b"
    r"|let me (?:know|double|check|verify|confirm)|that(?:'s| is) (?:because|more|less)|for (?:more"
    r"|further)|references?\b|i hope|feel free|(?:if|do|don't|would|should|can) (?:you|not hesitate)\b"
    r"|thanks?\b|good luck"
    r"|(?:we|i) (?:need to|must|have to|should|will) (?:consider|think|look|examine|analy[sz]e)\b"
    r"|let (?:me|us) (?:think|consider)"
    r"|this (?:(?:value|number|one) )?(?:appears|occurs|is because|can be (?:checked|verified|seen)|matches|works))",
    re.IGNORECASE,
)
CONFIRMS = re.compile(r"(?:\b(?:is|are|stays?) (?:valid|consistent)|\bchecks out|[✓✔✅])\W*$")
ABLE_TO_TELL = (
    r"\b(?:solve|determined?|answer|find|know|calculated?|computed?|information|help|tell|figured? out"
    r"|provide|assist|see"
    r"|view|access|sure|certain|count|read|say|deduced?|inferred?|understand|make sense|answered|parse"
    r"|explained?|data|details|context|image|picture|clear)\b"
)
REFUSAL = re.compile(
    r"\b(?:(?:do|does|did|can|could|is|are|am|was|were)(?:n't|n’t| not| no longer)|can ?not|can't"
    r"|couldn[o']t|impossible to"
    rf"|not possible to|sorry|not enough|insufficient|no)\b[^.]{{0,120}}?{ABLE_TO_TELL}"
    r"|\b(?:unsure|unable to|unclear|unknown|apolog\w+|i'm afraid|gi?ve up|none of|too (?:hard|difficult)"
    r"|lacks?|(?:is|are) missing|cut off"
    r"|(?:would|will) need (?:the|more|to see)|please (?:provide|share|give|upload|clarify)"
    r"|not (?:allowed|sufficient|given|provided)|no (?:solution|answer|way))\b",
    re.IGNORECASE,
)
BUT = re.compile(r"[,;:]\s*(?:but|however|yet|still|so|therefore|thus|hence)\b|\bbut\b", re.IGNORECASE)
BLANK = re.compile(r"_{2,}|\\_{2,}|\[\s*\]|\.{4,}\s*\w")
NOT_THE_ANSWER = re.compile(
    r"(?:\bor\s+(?:maybe|perhaps|possibly|even)?|\bat (?:least|most)"
    r"|(?:n't|\bnot|\bnever|\bcannot|\bno longer)(?:\s+(?:be|equal|equal to))?|\b(?:different|differs?"
    r"|far) from|\bby no means|\brule[sd]? out|\bwrong to say|\bother than|\brather than|\bany\w+ but|\bexceeds?"
    r"|\b(?:less|fewer|more|greater|smaller|larger|higher|lower) than(?: or equal to)?|\b(?:is|be|are"
    r"|was) (?:well |just )?(?:under|over|above|below)"
    r"|(?<!round )(?<!rounds )(?<!rounded )(?<!rounding )\bup to|≠)[(\s$]*$",
    re.IGNORECASE,
)
DENIED_BEHIND = re.compile(
    r"\W*(?:(?:but|and|which)\s+)?(?:(?:that|this|it|which)\s+)?(?:(?:is|was|are|would be|can|could)(?:n't"
    r"|n’t|\s*not)\b"
    r"|(?:is|was|would be|must be) (?:wrong|incorrect|impossible|false|too \w+)\b)"
    r"|\W*or (?:less|more|fewer|above|below|higher|lower|greater)\b",
    re.IGNORECASE,
)
DOUBTED = re.compile(r"\bdoubt\b|\b(?:impossible|false|untrue|wrong|incorrect|not true) that\b", re.IGNORECASE)
# A value that another one is set against: "18, not 20", "18 instead of 20".
SET_AGAINST = re.compile(
    r"(?:(?:,|\band|\bbut)\s*not|\b(?:instead of|rather than|unlike|versus|compared (?:to|with)))[\s$]*$",
    re.IGNORECASE,
)
CONCLUDES = re.compile(r"\b(?:so|therefore|thus|hence|total|finally|altogether|answer)\b|=|∴", re.IGNORECASE)
TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n]\s*|[-–—,]\s+)(?:oh |hmm,? |oops,? )?(?:wait|hmm+|oops|no,|actually|correction|sorry"
    r"|on second thought"
    r"|let me (?:re|correct)|i made (?:a|an) (?:mistake|error))",
    re.IGNORECASE,
)
CONCLUDES_AGAIN = re.compile(
    r"\b(?:so|therefore|thus|hence|it is|it's|it should be|correct(?:ed)?|must be|should be)\b", re.IGNORECASE
)
BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")

# Conditions, by what stands before their number.
CONDITION = re.compile(
    r"(?:\b(?:at least|at most|below|above|under|over|beyond|than|first|last|next|every|each|per|within"
    r"|between|out of|of the|horse"
    r"|number|equation|problem|question|step|case|part|day|year|page|in|on|after|before|until|since|from|during|with|transport)|#)"
    r"\s*(?:about|exactly|only|all|the|a|an|year|size"
    r"|(?:his|her|its|their|our|my)(?: \w+)?|the (?:original|initial|first|other))?"
    r"\s*#?$|\b(?:class|group|team|party|pack|set) of\s*$|\d [a-z]+ of\s*$"
    r"|\b(?:in|from|out of) (?:his|her|its|their|our|my|the|an?) \w+ of\s*$"
    r"|\b(?:of|from|out of) (?:his|her|its|their|our|my)\s*$",
    re.IGNORECASE,
)
# A number that only names something, or a quantity that the problem gave.
NAMES_ONLY = re.compile(
    r"\b(?:problem|question|case|step|figure|row|column|table|option|exercise|example|error|item|part)\s*#?$"
    r"|\b(?:about|of|for|on|with|without|all|count|that) (?:the|these|those)\s*$",
    re.IGNORECASE,
)
# Where a value is taken: "16, attained at x = 4", "16 when x = 4".
PLACE = re.compile(r"\b(?:at|when|for|where|if|with)\s*$", re.IGNORECASE)
GIVEN = re.compile(
    r"(?:%|percent) of\s*\$?$|\b(?:by [a-z]+ing|(?:at|with) (?:a |an )?(?:\w+ )?(?:\w+ )?of|side|radius)\s*\$?$",
    re.IGNORECASE,
)
RATE_BEHIND = re.compile(r"\s?(?:(?:[a-z]+\s)?apiece\b|(?:/|per\s)[a-z])", re.IGNORECASE)
EACH_BEHIND = re.compile(r"(?:\s[a-z]+)?\seach\b")
DEFINITE = re.compile(r"\b(?:the|these|those)\s*$", re.IGNORECASE)
OR = re.compile(r"(?:\s[a-z]+)?(?:,\s*|\s+)(?:or|i\.e\.,?|that is,?)\s+", re.IGNORECASE)
# The result of an operation, in other words: "25 - (5 + 3), or 17".
OR_RESULT = re.compile(r"[-+*/×·÷−]\s*\$?[\d.]+\)*,\s+or\s*$")
COMES_TO = re.compile(r"→|=|\bso\b")
RESULTS = r"(?:leaves|gives|means|makes|brings|comes|adds|totals|results|rounds|becomes)"
WHICH = rf"which(?! (?:{RESULTS}|(?-i:[A-Z])[a-z]+\s))"
THAT = rf"(?<!find )(?<!found )(?<!know )(?<!see )(?<!means )(?<!shows )(?<!conclude )(?<!so )that(?!['’]s| {RESULTS})"
ADJECTIVE_BEHIND = re.compile(r"-[a-z]+\b")
LEFT_WITH = re.compile(
    r"\b(?:leav(?:es|ing)|left|ends? up|ended up|is|are)\s(?:\w+\s)?with\s*(?:only |just |exactly |a total of )*$"
)
FOR = re.compile(
    r"\bfor\s*(?:all |the |every |each |his |her |their |an? )*(?:\d+\s[a-z]+(?:,|,? and)\s+)*$", re.IGNORECASE
)
MONEY = re.compile(r"\\?[$€£¥]|\S+\s(?:dollars|cents|euros|pounds)\b")
PER_TIME = re.compile(r"(?:\s[a-z]+){0,2}\s(?:a|an)\s(?:second|minute|hour|day|night|week|month|year|piece|person)\b")
RELATIVE = re.compile(
    rf"\b(?:{THAT}|{WHICH}|who|whose|where"
    r"|the \w+ (?:he|she|they|we|you|it)\b(?! \w+ (?:is|are|was|were)\b)"
    r"|with (?:a |an )?\w+s? (?:\w+ )?(?:above|below|than|over|under))\b"
)
SUBORDINATE = re.compile(
    rf",\s*(?:one|with|{WHICH}|where|when|since|because|while|whereas|though|although|compared|as|given)\b|\b(?:since|because|if)\b"
    r"|\bto (?!(?:get|find|obtain|give|yield|make|see|calculate|compute|determine|a|an|the|be|equal|arrive"
    r"|conclude|show|only"
    r"|about|exactly|just|reach|have|total|produce)\b)[a-z]+\b",
    re.IGNORECASE,
)
# A clause that only adds to what stands before it, up to where the main clause goes on.
ADDED_CLAUSE = re.compile(
    r"\b(?:after|when|having|considering|including|excluding|whereas|assuming|provided|supposing"
    r"|by [a-z]+ing|instead of|if|because|since)\b"
    r"|,\s*as (?:each|every|the|there|it|he|she|they|we|you|one)\b"
    r"|,\s*which is (?=\S+ (?:\w+ )?(?:more|less|fewer|times|of|as))"
    r"|,\s*(?:i\.e\.,?\s+)?(?:(?:\d+|twice|half|double|triple|[a-z]+ times)\b"
    r"(?= (?:more|less|fewer|of|as|the|[A-Z])))",
)
RESUMES = re.compile(
    r"[,;]\s*(?:so|then|and|but|thus|hence|therefore|we|he|she|it|they|there|giving|leaving|making)\b|;"
)
OPENING_CLAUSE = re.compile(
    r"\W*(?:(?:so|now|then|thus|therefore|hence|and|but)\b,?\s*)?(?:after|if|since|because|when|while|given|with|at|by|over"
    r"|out of|of|from|for|assuming|as|although|though|before|until|in|on|during|[a-z]+ing)\b(?:[^,;:=]|,(?=\d))*,\s",
    re.IGNORECASE,
)
# How a value was come by: "694, which is 204 + 160 + 330".
WORKING_BEHIND = re.compile(
    r"(?:[,;]?\s*\b(?:which (?:is|equals)|being|because|since|as|i\.e\.)|:)"
    r"\s+\$?\d[\d.,]*(?:(?:\s[-/−]\s|\s*[+*×·÷]\s*)\$?\d[\d.,]*)+\s*$"
    r"|(?<=[a-z%])\s*\(\s*\d[\d.,$]*(?:\s*[-+*/×·÷−]\s*\$?\d[\d.,]*)+\s*\)(?=\W*$)"
)
PARTS_FOLLOW = re.compile(r"[:,–—]|\bwith\b|\bof which\b")
STATES = re.compile(r"\b(?:is|are|was|were|equals?|costs?|makes?|gives?)\b[^a-z]*$|=\s*$", re.IGNORECASE)
THERE_ARE = re.compile(
    r"\bthere(?:['’]s| (?:are|is|were|was|will be|would be))\s+(?:only |just |exactly |a total of )*$", re.IGNORECASE
)
ASIDE_IN_BRACKETS = re.compile(r"\([^()]*[A-Za-z]{3,}[^()]*\)")
