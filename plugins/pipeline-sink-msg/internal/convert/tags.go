package convert

// Property ids (MS-OXPROPS §2), by what they mean here.
const (
	pidImportance            = 0x0017
	pidMessageClass          = 0x001A
	pidReadReceiptRequested  = 0x0029
	pidPriority              = 0x0026
	pidSensitivity           = 0x0036
	pidSubject               = 0x0037
	pidClientSubmitTime      = 0x0039
	pidRepresentingSearchKey = 0x003B
	pidSubjectPrefix         = 0x003D
	pidRepresentingEntryID   = 0x0041
	pidRepresentingName      = 0x0042
	pidReadReceiptEntryID    = 0x0046
	pidReplyEntries          = 0x004F
	pidReplyNames            = 0x0050
	pidReadReceiptSearchKey  = 0x0053
	pidRepresentingType      = 0x0064
	pidRepresentingAddress   = 0x0065
	pidConversationTopic     = 0x0070
	pidConversationIndex     = 0x0071
	pidTransportHeaders      = 0x007D

	pidReasonCode     = 0x0C04
	pidDiagnosticCode = 0x0C05
	pidRecipientType  = 0x0C15
	pidSenderEntryID  = 0x0C19
	pidSenderName     = 0x0C1A
	pidSupplementary  = 0x0C1B
	pidSenderKey      = 0x0C1D
	pidSenderType     = 0x0C1E
	pidSenderAddress  = 0x0C1F
	pidStatusCode     = 0x0C20

	pidDisplayBcc        = 0x0E02
	pidDisplayCc         = 0x0E03
	pidDisplayTo         = 0x0E04
	pidDeliveryTime      = 0x0E06
	pidMessageFlags      = 0x0E07
	pidHasAttachments    = 0x0E1B
	pidNormalizedSubject = 0x0E1D
	pidRTFInSync         = 0x0E1F
	pidAttachSize        = 0x0E20
	pidAttachNumber      = 0x0E21
	pidRecordKey         = 0x0FF9
	pidObjectType        = 0x0FFE
	pidEntryID           = 0x0FFF

	pidBody             = 0x1000
	pidReportText       = 0x1001
	pidRTFCompressed    = 0x1009
	pidHTML             = 0x1013
	pidNativeBody       = 0x1016
	pidMessageID        = 0x1035
	pidReferences       = 0x1039
	pidInReplyTo        = 0x1042
	pidListHelp         = 0x1043
	pidListSubscribe    = 0x1044
	pidListUnsubscribe  = 0x1045
	pidIconIndex        = 0x1080
	pidLastVerb         = 0x1081
	pidFlagStatus       = 0x1090
	pidFollowupIcon     = 0x1095
	pidRowID            = 0x3000
	pidDisplayName      = 0x3001
	pidAddressType      = 0x3002
	pidEmailAddress     = 0x3003
	pidCreationTime     = 0x3007
	pidModificationTime = 0x3008
	pidSearchKey        = 0x300B
	pidStoreSupport     = 0x340D

	pidAttachData        = 0x3701
	pidAttachEncoding    = 0x3702
	pidAttachExtension   = 0x3703
	pidAttachShortName   = 0x3704
	pidAttachMethod      = 0x3705
	pidAttachLongName    = 0x3707
	pidRenderingPosition = 0x370B
	pidAttachMediaType   = 0x370E
	pidAttachContentID   = 0x3712
	pidAttachLocation    = 0x3713
	pidAttachFlags       = 0x3714
	pidAttachCharset     = 0x371B
	pidAttachHidden      = 0x7FFE

	pidDisplayType        = 0x3900
	pidSMTPAddress        = 0x39FE
	pidInternetCodepage   = 0x3FDE
	pidLocale             = 0x3FF1
	pidMessageCodepage    = 0x3FFD
	pidReadReceiptType    = 0x4029
	pidReadReceiptAddress = 0x402A
	pidReadReceiptName    = 0x402B
	pidSenderSMTP         = 0x5D01
	pidRepresentingSMTP   = 0x5D02
	pidReadReceiptSMTP    = 0x5D05
	pidRecipientEntryID   = 0x5FF7
	pidRecipientName      = 0x5FF6
	pidRecipientFlags     = 0x5FFD
	lidFlagRequest        = 0x8530 // PidLidFlagRequest, in the set Common
)

// Values of those properties.
const (
	flagRead       = 0x1
	flagUnmodified = 0x2
	flagUnsent     = 0x8
	flagHasAttach  = 0x10
	flagEverRead   = 0x400

	storeUnicode = 0x00040E79 // STORE_UNICODE_OK and what Outlook writes with it

	objectRecipient  = 6
	objectAttachment = 7

	attachByValue  = 1
	attachEmbedded = 5
	attachInHTML   = 4 // ATT_MHTML_REF

	bodyText = 1
	bodyRTF  = 2
	bodyHTML = 3
)
